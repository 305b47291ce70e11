"""The core of Leeway: values, ports, rows, and the life of an order. Imports none of the other packages."""
