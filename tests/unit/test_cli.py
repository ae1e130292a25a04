"""The command line: what it prints, where, with which exit code."""

import contextlib
import io
import json
import os
import pty
import signal
import subprocess
import sys

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from treille.cli import main
from treille.cli.inputs import _typed
from treille.errors import NoTokenLeft, ParameterError
from treille.strategy import registry


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random Llama with one token per byte, and no end token."""
    directory = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(directory / "tokenizer.json"))
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return str(directory)


@pytest.fixture
def treille(capsys):
    """Runs a command line in this process: exit code, stdout, stderr."""

    def run(*arguments):
        with pytest.raises(SystemExit) as done:
            main(arguments)
        out, err = capsys.readouterr()
        return done.value.code, out, err

    return run


def process(*arguments, **more):
    """The command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "treille", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}, **more,
    )  # fmt: skip


# --- what it prints ---------------------------------------------------------------------------------------------------


def test_one_prompt_is_streamed_as_plain_text(treille, model):
    """Stdout holds the text alone, with a final line break; stderr is empty as it is no terminal."""
    code, out, err = treille("generate", "ab", "--model", model, "--max-new-tokens", "5")
    _, as_json, _ = treille("generate", "ab", "--model", model, "--max-new-tokens", "5", "--json")
    assert (code, err) == (0, "")
    assert out.removesuffix("\n") == json.loads(as_json)["text"].removesuffix("\n")


def test_json_is_one_object_per_prompt_and_line(treille, model, tmp_path):
    """Each line of `--json` is strict JSON with the fields of a Generation; ids, texts and chats can be mixed."""
    file = tmp_path / "prompts.jsonl"
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    file.write_text("\n".join(map(json.dumps, ["one", {"prompt": "two"}, {"prompt": [1, 2, 3]}, chat])) + "\n\n")
    code, out, err = treille(
        "generate", "--file", str(file), "--model", model, "--strategy", "beam", "-o", "width=2",
        "--max-new-tokens", "4", "--json",
    )  # fmt: skip
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [row["prompt"] for row in rows][:2] == ["one", "two"]
    assert rows[2]["prompt_tokens"] == [1, 2, 3]
    assert rows[3]["prompt"] == "<user>hi"
    assert {row["strategy"] for row in rows} == {"beam(width=2, max_new_tokens=4)"}
    assert all(len(row["tokens"]) == 4 and row["stats"]["forwards"] == 4 for row in rows)


def test_a_text_file_holds_a_prompt_per_line(treille, model, tmp_path):
    """Blank lines are no prompts; the answers are separated by a line of three dashes."""
    (tmp_path / "p.txt").write_text("one\n\ntwo\n")
    arguments = ("generate", "--file", str(tmp_path / "p.txt"), "--model", model, "-o", "bad_words_ids=[[13],[6]]")
    code, out, _ = treille(*arguments, "--max-new-tokens", "3")
    assert code == 0
    assert out.split("\n").count("---") == 1


def test_the_prompt_comes_from_stdin(treille, model, monkeypatch):
    """`-` reads the prompt from stdin, without the line break that echo adds."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from stdin\n")))
    _, out, _ = treille("generate", "-", "--model", model, "--max-new-tokens", "2", "--json")
    assert json.loads(out)["prompt"] == "from stdin"


def test_chat_wraps_the_prompt(treille, model):
    """`--chat` makes the prompt a user's message and applies the chat template."""
    _, out, _ = treille("generate", "hi", "--chat", "--model", model, "--max-new-tokens", "2", "--json")
    assert json.loads(out)["prompt"] == "<user>hi"


def test_n_texts_are_separated(treille, model):
    """`-n 3` prints three texts; the seed makes them the same each time."""
    arguments = ("generate", "x", "--model", model, "-n", "3", "--seed", "5", "--max-new-tokens", "3", "--json")
    _, first, _ = treille(*arguments)
    _, second, _ = treille(*arguments)
    assert len(json.loads(first)["candidates"]) == 3
    assert json.loads(first)["candidates"] == json.loads(second)["candidates"]


def test_options_reach_the_decoder(treille, model):
    """Flags and `-o` end up in the strategy's description and in the chain of processors; `--verbose` shows both."""
    code, _, err = treille(
        "generate", "x", "--model", model, "--temperature", "0.5", "--seed", "1", "--stop", "zz", "-o", "top-k=5",
        "-o", 'logit_bias={"7": -1.5}', "--max-new-tokens", "3", "--verbose",
    )  # fmt: skip
    assert code == 0
    assert "sample(" in err
    assert "stop_strings=['zz']" in err
    assert "top_k=5" in err
    assert "logit_bias={7: -1.5}" in err
    assert "temperature" in err
    assert "tokens/s" in err


@pytest.mark.parametrize("suffix", [".html", ".json", ".txt"])
def test_a_trace_is_written(treille, model, tmp_path, suffix):
    """`--trace` writes the file and changes nothing of the text."""
    arguments = ("generate", "x", "--model", model, "--max-new-tokens", "3")
    _, plain, _ = treille(*arguments)
    code, out, err = treille(*arguments, "--trace", str(tmp_path / f"t{suffix}"))
    assert (code, out, err) == (0, plain, "")
    assert "greedy" in (tmp_path / f"t{suffix}").read_text()


@pytest.mark.parametrize("strategy", ["greedy", "beam", "sample", "best_of_n", "first_finish"])
def test_the_trace_tells_the_same_as_the_result(treille, model, tmp_path, strategy):
    """The returned paths, their log-probabilities, the number of forwards; every node is accepted once."""
    file = tmp_path / "t.json"
    code, out, _ = treille(
        "generate", "x", "--strategy", strategy, "--model", model, "--max-new-tokens", "6", "--seed", "3", "--json",
        "--trace", str(file),
    )  # fmt: skip
    result, trace = json.loads(out), json.loads(file.read_text())
    nodes = trace["nodes"]
    for candidate, number in zip(result["candidates"], trace["candidates"], strict=True):
        line = []
        while number:
            line.append(nodes[number])
            number = nodes[number]["parent"]
        assert [token for node in line[::-1] for token in node["tokens"]] == candidate["tokens"]
        assert sum(node["logprob"] for node in line) == pytest.approx(candidate["logprob"], abs=1e-4)
    accepted = [number for event in trace["events"] if event["kind"] == "accepted" for number in event["nodes"]]
    assert code == 0
    assert trace["steps"] == result["stats"]["forwards"]
    assert accepted == list(range(1, len(nodes)))


def test_a_checkpoint_without_tokenizer_prints_ids(treille, model, tmp_path):
    """Prompts are ids from a file, and so is the answer."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(f"{model}/{name}")
    (tmp_path / "p.jsonl").write_text('{"prompt": [1, 2]}')
    code, out, _ = treille(
        "generate", "--file", str(tmp_path / "p.jsonl"), "--model", str(tmp_path), "--max-new-tokens", "3"
    )
    assert code == 0
    assert len([int(word) for word in out.split()]) == 3


def test_strategies_are_listed(treille):
    """Every strategy is listed with paper, exactness, cost and parameters, as a table and as JSON."""
    code, table, _ = treille("strategies")
    _, rows, _ = treille("strategies", "--json")
    assert code == 0
    assert all(info.name in table for info in registry)
    beam = next(row for row in json.loads(rows) if row["name"] == "beam")
    assert "width=4" in beam["parameters"]
    assert all(beam[key] for key in ("summary", "paper", "exactness", "cost"))


@pytest.mark.parametrize("preset", ["transformers", "vllm", "sglang", "llamacpp"])
def test_processors_are_listed_in_the_order_of_a_preset(treille, preset):
    """Every parameter appears, in the order of the preset's processors."""
    from treille.sampling.parameters import PARAMETERS
    from treille.sampling.presets import PRESETS

    _, rows, _ = treille("processors", "--preset", preset, "--json")
    found = json.loads(rows)
    assert {row["parameter"] for row in found} == set(PARAMETERS)
    assert list(dict.fromkeys(row["processor"] for row in found)) == list(PRESETS[preset].order)
    code, table, _ = treille("processors", "--preset", preset)
    assert code == 0
    assert "xtc_threshold" in table


def test_help_and_version(treille):
    """`--version` prints the version; no arguments and `--help` print the help; all exit with 0."""
    assert treille("--version")[:2] == (0, "treille 0.1.0\n")
    assert treille()[1] == treille("--help")[1]
    assert "--max-new-tokens" in treille("generate", "--help")[1]


def test_bench_passes_its_arguments_on(treille, monkeypatch):
    """`treille bench core` hands everything after the name, `--help` included, to the benchmark."""
    seen = []
    module = type(sys)("treille.bench.core")
    module.main = seen.append
    monkeypatch.setitem(sys.modules, "treille.bench.core", module)
    assert treille("bench", "core", "--device", "cuda", "--help")[0] == 0
    assert [list(arguments) for arguments in seen] == [["--device", "cuda", "--help"]]


# --- what it refuses --------------------------------------------------------------------------------------------------

BAD = {
    "unknown command": (["frob"], "frob"),
    "unknown flag": (["generate", "x", "--frob"], "--frob"),
    "too many arguments": (["generate", "x", "y"], "y"),
    "not a number": (["generate", "x", "--temperature", "hot"], "--temperature"),
    "no prompt": (["generate"], "PROMPT"),
    "two prompts": (["generate", "x", "--file", "p.txt"], "--file"),
    "empty prompt": (["generate", "", "--model", "MODEL"], "prompt"),
    "unknown strategy": (["generate", "x", "--strategy", "beem"], "beam"),
    "unknown parameter": (["generate", "x", "--strategy", "beam", "-o", "widht=4"], "width"),
    "option without value": (["generate", "x", "-o", "width"], "name=value"),
    "option given twice": (["generate", "x", "--seed", "1", "-o", "seed=2"], "twice"),
    "wrong type": (["generate", "x", "--strategy", "beam", "-o", "width=four"], "four"),
    "not JSON": (["generate", "x", "-o", "suppress_tokens=[1,"], "suppress_tokens"),
    "python function": (["generate", "x", "-o", "logits_processor=f"], "Python function"),
    "strategy's value": (["generate", "x", "--strategy", "beam", "-o", "width=0", "--model", "MODEL"], "width=0"),
    "processor's value": (["generate", "x", "-o", "top_p=7", "--temperature", "1", "--model", "MODEL"], "top_p=7"),
    "no effect": (["generate", "x", "--strategy", "greedy", "-o", "top_k=3", "--model", "MODEL"], "sample"),
    "longer than the context": (["generate", "x", "--max-new-tokens", "5000", "--model", "MODEL"], "5000"),
    "unknown drafter": (["generate", "x", "--draft", "promt_lookup"], "prompt_lookup"),
    "drafter's parameter": (["generate", "x", "--draft", "prompt_lookup:kk=3"], "kk=3"),
    "no draft model": (["generate", "x", "--draft", "draft_model", "--model", "MODEL"], "draft_model="),
    "draft for beam": (["generate", "x", "--strategy", "beam", "--draft", "prompt_lookup"], "beam"),
    "no schema file": (["generate", "x", "--json-schema", "no-such-schema.json"], "no-such-schema.json"),
    "bad regex": (["generate", "x", "--regex", "a("], "a("),
    "no end token": (["generate", "x", "--regex", "a", "--model", "MODEL"], "eos_token_id"),
    "no grammar file": (["generate", "x", "--grammar", "no-such.lark"], "no-such.lark"),
    "empty choice": (["generate", "x", "--choices", "[1]"], "[1]"),
    "two constraints": (["generate", "x", "--regex", "a", "--choices", "b"], "--choices"),
    "no such model": (["generate", "x", "--model", "/no/such/model"], "/no/such/model"),
    "unknown dtype": (["generate", "x", "--dtype", "float7", "--model", "MODEL"], "float7"),
    "unknown device": (["generate", "x", "--device", "abacus", "--model", "MODEL"], "abacus"),
    "no such file": (["generate", "--file", "/no/such/file.txt"], "/no/such/file.txt"),
    "unknown kind of file": (["generate", "--file", "prompts.pdf"], ".jsonl"),
    "trace of many": (["generate", "--file", "FILE", "--trace", "t.html"], "--trace"),
    "trace's ending": (["generate", "x", "--trace", "t.pdf"], ".html"),
    "trace's directory": (["generate", "x", "--trace", "/no/such/directory/t.html"], "/no/such/directory"),
    "unknown preset": (["processors", "--preset", "ollama"], "ollama"),
    "no benchmark": (["bench"], "name"),
    "unknown benchmark": (["bench", "frob"], "core"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_with_exit_code_2(treille, model, tmp_path, case):
    """One line on stderr that names the value; nothing on stdout; no traceback."""
    arguments, named = BAD[case]
    (tmp_path / "p.txt").write_text("one\n")
    places = {"MODEL": model, "FILE": str(tmp_path / "p.txt")}
    code, out, err = treille(*[places.get(argument, argument) for argument in arguments])
    assert code == 2
    assert out == ""
    assert err.startswith("treille: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert named in err


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("p.txt", b"\xff\xfe\n", "UTF-8"),
        ("p.txt", b"\n \n", "no prompt"),
        ("p.jsonl", b'"ok"\n{"prompt": \n', "line 2"),
        ("p.jsonl", b'{"prompt": "x", "seed": 1}', "seed"),
        ("p.jsonl", b'{"prompt": [1, "a"]}', "token ids"),
        ("p.jsonl", b'{"messages": "x"}', "role and content"),
        ("p.jsonl", b"7", "prompt"),
    ],
)
def test_bad_files_are_one_line_with_exit_code_2(treille, tmp_path, name, content, named):
    """A file of prompts that cannot be used is refused with the line and the reason."""
    (tmp_path / name).write_bytes(content)
    code, out, err = treille("generate", "--file", str(tmp_path / name))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert named in err


def test_a_run_that_fails_is_one_line_with_exit_code_1(treille, model):
    """Nothing was wrong with the request as such, but decoding came to an end: exit code 1."""
    everything = json.dumps(list(range(256)))
    code, _, err = treille("generate", "x", "--model", model, "-o", f"suppress_tokens={everything}")
    assert code == 1
    assert err.count("\n") == 1
    assert "no token is left" in err
    assert issubclass(NoTokenLeft, Exception)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", "4", 4),
        ("int", "four", "four"),
        ("float", ".5", 0.5),
        ("float", "1e-3", 1e-3),
        ("bool", "true", True),
        ("bool", "False", False),
        ("str", "5", "5"),
        ("str | None", "5", "5"),
        ("str | None", "None", None),
        ("int | None", "3", 3),
        ("EarlyStopping", "never", "never"),
        ("EarlyStopping", "true", True),
        ("list[int]", "[1, 2]", [1, 2]),
        ("dict[int, float]", '{"3": 1.5}', {3: 1.5}),
        ("list", "END", "END"),
        ("", "[1]", [1]),
    ],
)
def test_values_are_typed_by_their_parameter(kind, text, value):
    """A text becomes what the parameter takes; what fits nothing stays a text, which the parameter then refuses."""
    found = _typed("name", text, kind)
    assert found == value
    assert type(found) is type(value)


def test_functions_cannot_be_typed():
    """A parameter that takes a Python function says that it needs Python."""
    with pytest.raises(ParameterError, match="Python function"):
        _typed("extract", "f", "Callable[[str], Hashable | None]")


# --- as a process -----------------------------------------------------------------------------------------------------


def test_a_process_exits_as_promised(model):
    """The installed module, run as a process: text and 0, one line and 2, no traceback."""
    with process("generate", "ab", "--model", model, "--max-new-tokens", "3", "--json") as good:
        out, err = good.communicate()
    assert (good.returncode, err) == (0, b"")
    assert json.loads(out)["finish_reason"] == "length"
    with process("generate", "ab", "--strategy", "beem") as bad:
        out, err = bad.communicate()
    assert (bad.returncode, out, err.count(b"\n")) == (2, b"", 1)


def test_control_c_and_a_closed_pipe_are_quiet(model):
    """An interrupt exits with 130, a reader that goes away with 1; neither says anything on stderr."""
    arguments = ("generate", "ab", "--model", model, "--max-new-tokens", "4000")
    arguments += ("--temperature", "1", "--seed", "1", "-o", "eos_token_id=[]")
    # A small pipe fills long before the text ends, so the command still writes when the signal comes.
    with process(*arguments, pipesize=4096) as interrupted, process(*arguments, pipesize=4096) as unread:
        assert interrupted.stdout.read(1)
        interrupted.send_signal(signal.SIGINT)
        assert unread.stdout.read(1)
        unread.stdout.close()
        unread.stdout = None
        assert interrupted.communicate()[1] == b""
        assert unread.communicate()[1] == b""
    assert interrupted.returncode == 130
    assert unread.returncode == 1


def test_a_terminal_sees_progress_and_figures(model, tmp_path):
    """With a terminal as stderr there are a progress bar and a line of figures; stdout holds the texts alone."""
    (tmp_path / "p.txt").write_text("one\ntwo\n")
    ours, theirs = pty.openpty()
    arguments = ("generate", "--file", str(tmp_path / "p.txt"), "--model", model, "--max-new-tokens", "3", "--json")
    command = [sys.executable, "-m", "treille", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs) as run:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux says that the other side of a terminal was closed
            while piece := os.read(ours, 4096):
                shown += piece
        out = run.stdout.read()
    os.close(ours)
    assert run.returncode == 0
    assert len(out.splitlines()) == 2
    assert b"loading" in shown
    assert b"decoding" in shown
    assert b"tokens/s" in shown
