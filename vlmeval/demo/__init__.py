"""The embedded demo: tiny real vision-language models, a synthetic benchmark for them, and how both were made.

```
shapes.py          the world: scenes of one kind of object, their pictures, the questions about them
make_bench.py      command: writes ShapesBench.tsv
prompts.py         the text that the kit sends to each family
chat_templates.py  one chat template per family, in the structure of the real one
checkpoints.py     tokenizer + processor + random tiny model per family
packed_forward.py  several questions about one picture in one row, with the mathematics of the stock forward
batches.py         scenes -> packed training batches
train.py           command: trains one family on a CPU and writes the checkpoint folder
evaluate.py        command: accuracy of a checkpoint folder through `generate`
golden.py          command: chosen logits of fixed samples, kept to see what accuracy does not
```

Importing this package imports neither torch nor transformers.
"""
