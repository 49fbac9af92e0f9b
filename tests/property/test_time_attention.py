"""The bucket form of time-aware attention against the paper's plain form, and personal times against a loop."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec.batches.ticks import personal_times
from sasrec.models.attention import bucket_attention, plain_attention
from sasrec.models.tisasrec import intervals


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 4), heads=st.integers(1, 3), length=st.integers(1, 9), width=st.integers(1, 5),
    time_span=st.integers(1, 20), longest_gap=st.integers(0, 9), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_the_bucket_form_equals_the_plain_form_with_its_gradients(
    batch: int, heads: int, length: int, width: int, time_span: int, longest_gap: int, seed: int
) -> None:
    torch.manual_seed(seed)
    shapes = [(batch, heads, length, width)] * 3 + [(heads, time_span + 1, width)] * 2
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    times = torch.randint(0, longest_gap + 1, (batch, length)).cumsum(1)
    kept = (torch.rand(batch, heads, length, length) > 0.3).double()
    upstream = torch.randn(shapes[0], dtype=torch.float64)
    results = []
    for form in (bucket_attention, plain_attention):
        out = form(*inputs, intervals(times, time_span), lambda weights: weights * kept)
        results.append((out, torch.autograd.grad((out * upstream).sum(), inputs)))
    (ours, our_gradients), (plain, plain_gradients) = results
    assert (ours - plain).abs().max() < 1e-12
    for one, other in zip(our_gradients, plain_gradients, strict=True):
        assert (one - other).abs().max() < 1e-10


@settings(max_examples=60, deadline=None)
@given(gaps=st.lists(st.lists(st.integers(0, 50), max_size=8), min_size=1, max_size=5), cut=st.integers(0, 9))
def test_personal_times_equal_their_definition(gaps: list[list[int]], cut: int) -> None:
    rows = [np.cumsum([1000, *row]) for row in gaps]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    ends = np.minimum(offsets[:-1] + cut, offsets[1:])
    found = personal_times(np.concatenate(rows) * 10**6, offsets, ends)
    for u, row in enumerate(rows):
        steps = [b - a for a, b in itertools.pairwise(row) if b > a]
        unit = min((b - a for a, b in itertools.pairwise(row[:cut]) if b > a), default=steps[0] if steps else 1)
        expected = [round((t - row[0]) / unit) + 1 for t in row]
        assert found[offsets[u] : offsets[u + 1]].tolist() == expected
