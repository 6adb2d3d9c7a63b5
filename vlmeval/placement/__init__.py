"""How a model is laid over the cards a machine has: pure planning, before anything is loaded.

profile.py      what planning needs to know of a model: ordered blocks, as plain values
pieces.py       the module tree of a model, in the order data flows
blocks.py       a model on meta -> those pieces with their sizes, that profile (imports torch)
cost_model.py   block + workload -> bytes of weights, KV cache and activations
partition.py    blocks + cards -> stages, exact for unequal cards
policy.py       split or not, how many cards a replica, how many replicas
device_map.py   stages -> device_map; a map given by hand is checked
dispatch.py     a model on its cards, made to run: where its parts live (homes.py), what is brought over (carrier.py)
"""
