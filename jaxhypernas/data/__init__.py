"""Images: where they come from, how they are split, batched and streamed.

`dataset.load` reads and splits a set on the host, `batches` holds images on the
devices, and `loader.segments` streams them there.
"""
