"""The four presets written a second time: plain Python, one row, no sharing of code with the package."""

import math

import numpy as np

OFF = -math.inf


def softmax(logits):
    """The law of the logits."""
    best = max(logits)
    weights = [math.exp(l - best) for l in logits]
    return [w / sum(weights) for w in weights]


def entropy(p):
    """In nats."""
    return -sum(x * math.log(x) for x in p if x > 0)


def only(logits, kept):
    """Only the kept tokens."""
    return [l if i in kept else OFF for i, l in enumerate(logits)]


def descending(logits):
    """Ids from best to worst, lower ids first among equals."""
    return sorted(range(len(logits)), key=lambda i: (-logits[i], i))


def top_k_with_ties(logits, k):
    """Everything at least as good as the k-th best."""
    if k <= 0:
        return logits
    cut = sorted(logits, reverse=True)[min(k, len(logits)) - 1]
    return [l if l >= cut else OFF for l in logits]


def top_k_exact(logits, k):
    """Exactly k."""
    return only(logits, set(descending(logits)[:k])) if k > 0 else logits


def top_p(logits, threshold):
    """Strict mass before."""
    if threshold >= 1:
        return logits
    p, before, kept = softmax(logits), 0.0, set()
    for i in descending(logits):
        if before < threshold or not kept:
            kept.add(i)
        before += p[i]
    return only(logits, kept)


def joint(logits, k, threshold):
    """Both rules on the same law."""
    nucleus = top_p(logits, threshold)
    best = top_k_exact(logits, k)
    return [n if b != OFF else OFF for n, b in zip(nucleus, best, strict=True)]


def min_p(logits, share):
    """Relative to the best."""
    p = softmax(logits)
    return [l if x >= share * max(p) else OFF for l, x in zip(logits, p, strict=True)]


def typical(logits, mass, *, ties):
    """By distance of the surprise from the entropy."""
    if mass >= 1:
        return logits
    p = softmax(logits)
    h = entropy(p)
    distance = [abs(-math.log(x) - h) if x > 0 else math.inf for x in p]
    reached, kept = 0.0, set()
    for i in sorted(range(len(p)), key=lambda i: (round(distance[i], 12), i)):
        kept.add(i)
        reached += p[i]
        if reached >= mass:
            if ties:
                kept |= {j for j in range(len(p)) if distance[j] <= distance[i] + 1e-12}
            break
    return only(logits, kept)


def at_least(logits, cutoff):
    """A floor on the probability; the best always stays."""
    p = softmax(logits)
    return [l if x >= cutoff or l == max(logits) else OFF for l, x in zip(logits, p, strict=True)]


def epsilon(logits, cutoff):
    """A fixed floor."""
    return at_least(logits, cutoff) if cutoff else logits


def eta(logits, cutoff):
    """A floor that sinks with the entropy."""
    return at_least(logits, min(cutoff, math.sqrt(cutoff) * math.exp(-entropy(softmax(logits))))) if cutoff else logits


def top_n_sigma(logits, n):
    """Within n deviations of the best."""
    if n <= 0:
        return logits
    finite = [l for l in logits if l != OFF]
    return [l if l >= max(finite) - n * float(np.std(finite)) else OFF for l in logits]


def top_h(logits, share):
    """By share of the entropy."""
    if share is None:
        return logits
    best = descending(logits)[:100]
    p = softmax([logits[i] for i in best])
    limit, reached, kept = share * entropy(p), 0.0, {best[0]}
    for i, x in zip(best, p, strict=True):
        reached -= x * math.log(x) if x > 0 else 0.0
        if reached > limit:
            break
        kept.add(i)
    return only(logits, kept)


def repetition(logits, seen, r):
    """Scales seen tokens."""
    return [(l * r if l < 0 else l / r) if i in set(seen) else l for i, l in enumerate(logits)]


def additive(logits, seen, frequency, presence):
    """Subtracts by count and by presence."""
    counts = [seen.count(i) for i in range(len(logits))]
    return [l - c * frequency - (presence if c else 0.0) for l, c in zip(logits, counts, strict=True)]


def bias(logits, biases):
    """Adds to tokens."""
    return [l + biases.get(i, 0.0) for i, l in enumerate(logits)]


def bad_words(logits, words, text):
    """Forbids ends of words."""
    logits = list(logits)
    for word in words:
        n = len(word) - 1
        if n == 0 or text[-n:] == word[:-1]:
            logits[word[-1]] = OFF
    return logits


def ban(logits, tokens):
    """Forbids tokens."""
    return [OFF if i in tokens else l for i, l in enumerate(logits)]


def temper(logits, t):
    """Divides."""
    return [l / t for l in logits]


def transformers(l, prompt, output, v, eos):
    """Every rule in the order of `transformers`."""
    path = prompt + output
    l = bias(l, v["logit_bias"])
    l = repetition(l, path, v["repetition_penalty"])
    l = additive(l, output, v["frequency_penalty"], v["presence_penalty"])
    l = bad_words(l, [w for w in v["bad_words_ids"] if w != [eos]], path)
    l = ban(l, {eos}) if len(output) < v["min_new_tokens"] else l
    l = temper(l, v["temperature"])
    l = top_n_sigma(l, v["top_n_sigma"])
    l = top_h(l, v["top_h"])
    l = top_k_with_ties(l, v["top_k"])
    l = top_p(l, v["top_p"])
    l = min_p(l, v["min_p"])
    l = typical(l, v["typical_p"], ties=True)
    l = epsilon(l, v["epsilon_cutoff"])
    return eta(l, v["eta_cutoff"])


def vllm(l, prompt, output, v, eos):
    """Every rule in the order of vLLM."""
    l = bad_words(l, v["bad_words_ids"], output)
    l = ban(l, {eos}) if len(output) < v["min_new_tokens"] else l
    l = bias(l, v["logit_bias"])
    l = repetition(l, prompt + output, v["repetition_penalty"])
    l = additive(l, output, v["frequency_penalty"], v["presence_penalty"])
    l = temper(l, v["temperature"])
    l = min_p(l, v["min_p"])
    l = top_k_with_ties(l, v["top_k"])
    return top_p(l, v["top_p"])


def sglang(l, prompt, output, v, eos):
    """Every rule in the order of SGLang."""
    l = additive(l, output, v["frequency_penalty"], v["presence_penalty"])
    l = ban(l, {eos}) if len(output) < v["min_new_tokens"] else l
    l = repetition(l, output, v["repetition_penalty"])
    l = bad_words(l, v["bad_words_ids"], prompt + output)
    l = bias(l, v["logit_bias"])
    l = temper(l, v["temperature"])
    l = joint(l, v["top_k"] or len(l), v["top_p"])
    return min_p(l, v["min_p"])


def llamacpp(l, prompt, output, v, eos):
    """Every rule in the order of llama.cpp."""
    path = prompt + output
    window = path[-v.get("penalty_last_n", 64) :]
    l = bias(l, v["logit_bias"])
    l = bad_words(l, v["bad_words_ids"], path)
    l = ban(l, {eos}) if len(output) < v["min_new_tokens"] else l
    l = repetition(l, window, v["repetition_penalty"])
    l = additive(l, window, v["frequency_penalty"], v["presence_penalty"])
    l = top_n_sigma(l, v["top_n_sigma"])
    l = top_k_exact(l, v["top_k"])
    l = typical(l, v["typical_p"], ties=False)
    l = top_p(l, v["top_p"])
    l = min_p(l, v["min_p"])
    return temper(l, v["temperature"])


PRESETS = {"transformers": transformers, "vllm": vllm, "sglang": sglang, "llamacpp": llamacpp}


def dry(window, allowed, breakers):
    """Longest match by token, by comparing every suffix with every place; breakers are token id tuples."""
    n = len(window)
    limit = n
    for head in reversed(range(n)):
        fits = [b for b in breakers if tuple(window[head : head + len(b)]) == tuple(b)]
        if fits:
            limit = n - head - max(map(len, fits))
            break
    longest = {}
    if n <= allowed or limit < allowed:
        return longest
    for i in range(n - 1):
        length = 0
        while length <= i and length < limit and window[i - length] == window[n - 1 - length]:
            length += 1
        if length >= allowed and (window[i + 1],) not in breakers:
            longest[window[i + 1]] = max(longest.get(window[i + 1], 0), length)
    return longest
