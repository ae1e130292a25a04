"""Straight-line versions of what other libraries compute, written with lists from their documented steps."""

import math

NOTHING = -1e9


def best(values, count):
    """Indices of the `count` largest values, the earlier first on ties."""
    return sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]


def transformers_beam(logp, *, vocabulary, width, ends, max_new_tokens, length_penalty, early_stopping):
    """Sequences and scores of `transformers` 5 beam search, slot by slot, with its -1e9 for empty slots.

    `logp` maps generated tokens to the list of processed log-probabilities.
    """
    running, running_scores = [()] * width, [0.0] + [NOTHING] * (width - 1)
    pool, pool_scores, pool_done = [()] * width, [NOTHING] * width, [False] * width
    keep = max(2, 1 + len(ends)) * width
    improvable, length = True, 0
    while True:
        totals = [running_scores[b] + value for b in range(width) for value in logp(running[b])]
        order = best(totals, keep)
        texts = [(*running[i // vocabulary], i % vocabulary) for i in order]
        scores = [totals[i] for i in order]
        stopped = [text[-1] in ends or len(text) >= max_new_tokens for text in texts]

        open_scores = [score + NOTHING * stop for score, stop in zip(scores, stopped, strict=True)]
        chosen = best(open_scores, width)
        running, running_scores = [texts[i] for i in chosen], [open_scores[i] for i in chosen]

        finished = [stop and rank < width for rank, stop in enumerate(stopped)]
        final = [score / (length + 1) ** length_penalty for score in scores]
        full = all(pool_done) and early_stopping is True
        final = [
            value + NOTHING * (full + (not improvable) + (not f)) for value, f in zip(final, finished, strict=True)
        ]
        merged, merged_scores, merged_done = pool + texts, pool_scores + final, pool_done + finished
        chosen = best(merged_scores, width)
        pool = [merged[i] for i in chosen]
        pool_scores = [merged_scores[i] for i in chosen]
        pool_done = [merged_done[i] for i in chosen]

        length += 1
        reach = max_new_tokens if early_stopping == "never" and length_penalty > 0 else length
        possible = running_scores[0] / reach**length_penalty
        improvable = improvable and any(possible > (min(pool_scores) if d else NOTHING) for d in pool_done)
        if not improvable or (all(pool_done) and early_stopping is True) or all(stopped):
            return list(zip(pool, pool_scores, strict=True))


def group_beam(logp, *, width, groups, diversity_penalty, ends, max_new_tokens, penalty_in_score):
    """Diverse beam search with length penalty 1 and early_stopping False: per group, the sorted (text, score) pool."""
    each = width // groups
    states = [{"open": [((), 0.0)], "pool": [], "done": False} for _ in range(groups)]
    keep = max(2, 1 + len(ends)) * each
    for length in range(1, max_new_tokens + 1):
        taken = []
        for state in states:
            if state["done"]:
                continue
            options = []
            for index, (text, score) in enumerate(state["open"]):
                for token, value in enumerate(logp(text)):
                    plain = score + value
                    rank = plain - diversity_penalty * taken.count(token)
                    stored = rank if penalty_in_score else plain
                    if value > -math.inf:
                        options.append((-rank, index, token, (*text, token), stored))
            options = sorted(options)[:keep]
            state["open"] = []
            for place, (_, _, token, text, stored) in enumerate(options):
                if token in ends or length == max_new_tokens:
                    if place < each:
                        state["pool"].append((text, stored / length))
                elif len(state["open"]) < each:
                    state["open"].append((text, stored))
            state["pool"] = sorted(state["pool"], key=lambda item: -item[1])[:each]
            taken += [text[-1] for text, _ in state["open"]]
            full = len(state["pool"]) == each
            state["done"] = not state["open"] or (full and state["pool"][-1][1] >= state["open"][0][1] / length)
    return [state["pool"] for state in states]
