"""Makes `.venv` fit for running or testing this checkout: `python -m tools.setup run|test [--into DIR]`.

Called by `make` with any Python >= 3.11 and nothing else installed, so only the standard library is used. Everything
goes into the checkout. Packages come through the user's own pip with the user's own settings (index, proxy,
certificates), and must match the hashes in `requirements/*.txt`.

Whatever kills a set-up, the next one mends what it left: `state.json` says `finished` only after the last step, half
installed packages are found by their own records, and a second set-up started meanwhile waits for the first.
"""
