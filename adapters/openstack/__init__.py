"""OpenStack: Keystone, Nova, Glance and Neutron, since Rocky (2018); older ones where nothing newer is used.

Of libcloud the connection and the service catalogue are used. The methods of its OPENSTACK driver are not, because each
lacks something that this adapter promises: lists are not paged or cannot be filtered, errors are texts, some states
have no name, nobody can log in to a project in another domain, its token cache mixes users, and no driver serves two
threads.
"""
