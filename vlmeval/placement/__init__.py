"""How a model is laid over the cards a machine has: planned before anything is loaded, then kept true while it runs.

Planning, without torch but for the two that look at a model on meta:

profile.py        what planning needs to know of a model: ordered blocks, as plain values
pieces.py         the module tree of a model, in the order data flows (imports torch)
blocks.py         a model on meta -> those pieces with their sizes, that profile (imports torch)
known.py          the profiles of registered models, kept in the package
cutting.py        images -> tokens, tiles, patches; video_cutting.py the same for videos
workload.py       the worst sample of a run
cost_model.py     block + workload -> bytes of weights, KV cache and activations
partition.py      blocks + cards -> stages, exact for unequal cards
layout.py         a model and its worst sample, to be laid over any cards
policy.py         split or not, how many cards a replica, how many replicas
device_map.py     stages -> device_map; a map given by hand is checked
advice.py         what would make fit what does not
speeds.py         what cards and ways between them are capable of; in_flight.py: how many batches that is worth
rebalance.py      measured peaks -> better stages

Running, with torch:

dispatch.py       a model on its cards, made to run: where its parts live (homes.py), what is brought over (carrier.py)
mismatch.py       tensors that meet on two cards, explained
turns.py          several batches in flight, each card in turn
copy_check.py     do copies between cards arrive; detour.py: the way around for those that do not
moving.py         blocks of a loaded model, from card to card

simulate/         cards that are not there
"""
