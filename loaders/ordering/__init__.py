"""Which samples make global batch g of an epoch: orders that know shards, lanes, mixtures and the end of an epoch.

All of it is a pure function of a few numbers; what is kept between calls are caches. The algorithms are a format, see
docs/design/020-sample-order.md.
"""
