"""A program under its own names: which of its tensors is which of the reference's, and in what layout.

How matching works, on one tensor of a GPT-2 that somebody wrote with names of their own:

    the program's   trf_blocks.0.att.W_key.weight        [64, 64], of an nn.Linear
    the reference's transformer.h.0.attn.c_attn.weight   [64, 192], of a Conv1D, which holds [in, out]

1. `units` takes the tensors of one module as one unit, a weight with its bias, and `roles` reads its path: `W_key` in
   `att` is the key projection of layer 0's attention, and `c_attn` holds queries, keys and values in one.
2. `matching` pairs the units of a layer, the surest first: units of the same name, then of the same role; `fused` and
   `experts` those that one of the two holds in one tensor and the other in several, as here; then norms by where they
   stand; last what its shape alone leaves possible, or its order. `pool` has what is left on both sides.
3. A pair gives a recipe (`recipes`) for each of the program's tensors: here part 2 of 3 of c_attn's rows, transposed.
4. What names and shapes leave open is a question (`questions`), its likeliest answer first: whether the rows of c_attn
   are all queries, then all keys, or by turns head by head.
5. `trial_runs` answers it: the smallest module that uses the tensors, here `trf_blocks.0.att`, is called on the
   reference's own input. The first answer stays unless the module is wrong with it, and right or clearly nearer with
   another; what a careless loader would get wrong unnoticed has to be asked for (--reordered).
6. `paths` writes the trace under the program's names, and from there a comparison is that of a lesson:
   `trf_blocks.0.att` is `transformer.h.0.attn`, since the two hold the same.

`alignment` goes through 1 to 4 for a whole model, `loading` through all; `wording` shows it, `files` keeps it.
"""
