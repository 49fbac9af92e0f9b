"""Words of the command line before they are parsed, and the words of errors after."""

from __future__ import annotations

import dataclasses

import pytest

from sasrec.cli.arguments import as_options, misspelt, published_spellings, recipe_named_in
from sasrec.cli.commands import Train
from sasrec.cli.data_commands import Prepare
from sasrec.cli.main import _COMMANDS
from sasrec.cli.recommend import Recommend
from sasrec.cli.study_commands import Compare, Reproduce
from sasrec.config.settings import PARTS, RunConfig
from sasrec.errors import ConfigError

COMMANDS = {"train": Train, "recommend": Recommend, "prepare": Prepare, "compare": Compare}


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--train_dir", "x", "--no-mhc", "--lr=1e-3", "--from", "copy", "--norm", "pre", "--no_resume"],
        ["recommend", "x", "--history", "a", "--include-seen", "--k", "3", "--no_all"],
        ["compare", "a", "b", "--metric", "hr@10"],
        ["prepare", "x.csv", "--output", "y", "--max_rejects", "-1", "--help"],
        ["--help"],
    ],
)
def test_every_option_is_known(arguments: list[str]) -> None:
    assert misspelt(arguments, COMMANDS) is None


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("use columns='user,item,-,time'.", "use --columns user,item,-,time."),
        ("use time_column='Bought on', or", "use --time_column 'Bought on', or"),
        ("as in where=\"kind = 'buy'\"", "as in --where \"kind = 'buy'\""),
        ("as in where='price > 3'", "as in --where 'price > 3'"),
    ],
)
def test_a_remedy_can_be_pasted_in_the_shell(message: str, shown: str) -> None:
    assert as_options(message, COMMANDS.values()) == shown


def test_prepare_takes_the_names_of_the_settings_for_its_columns() -> None:
    given = ["prepare", "x", "--user_column", "u", "--time-column=none"]
    assert published_spellings(given) == ["prepare", "x", "--user", "u", "--time=none"]
    assert published_spellings(["train", *given[1:]])[2:] == given[2:]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--max-len", "5"], "unknown option --max-len of train; did you mean --maxlen?"),
        (["train", "--hiden_units=5"], "unknown option --hiden_units of train; did you mean --hidden_units?"),
        (["train", "--lr_decay_step", "1000"], "unknown option --lr_decay_step of train; did you mean --step_size?"),
        (["train", "--lr-decay-rate=0.5"], "unknown option --lr-decay-rate of train; did you mean --gamma?"),
        (["train", "--learning_rate", "0.1"], "unknown option --learning_rate of train; did you mean --lr?"),
        (["train", "--num_layers", "2"], "unknown option --num_layers of train; did you mean --num_blocks?"),
        (["recommend", "run", "--gbce_t", "5"], "unknown option --gbce_t of recommend; it is an option of train"),
        (["recommend", "--run_dir", "run"], "unknown option --run_dir of recommend; sasrec recommend --help lists the options"),
        (["train", "--items", "t.csv"], "unknown option --items of train; it is an option of prepare"),
        (["train", "my events.csv"], "train takes its data as an option; did you mean --dataset 'my events.csv'?"),
        (["recommend", "run", "u5", "--k", "3"], "recommend takes one run; did you mean --user u5?"),
        (["recommend", "run", "--history", "i1,", "i2"], "a blank divides i1, and i2; write i1,i2 without the blank"),
        (["recomend"], "unknown command recomend; did you mean recommend?"),
        (["zzz"], "unknown command zzz; sasrec --help lists the commands"),
        (["--maxlen", "5", "train"], "unknown option --maxlen; sasrec --help lists the commands"),
    ],
)  # fmt: skip
def test_a_misspelt_word_gets_the_nearest_of_that_command(arguments: list[str], sentence: str) -> None:
    assert misspelt(arguments, COMMANDS) == sentence


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("use time=True", "use --time"),
        ("use time=False or mhc=False.", "use --no_time or --no_mhc."),
        ("use loss='ce', not loss=bce", "use --loss ce, not --loss bce"),
        ("split='temporal:0.9' needs times", "--split temporal:0.9 needs times"),
        ("remove local_copy=FILE, or start_from=RUN", "remove --from FILE, or --state_dict_path RUN"),
        ("give another `split` or `local_copy`", "give another --split or --from"),
        ("`prepare` and `nothing` are no options", "`prepare` and `nothing` are no options"),
        ("cannot cast Duration(time_unit='us') to f64; use time=True", "cannot cast Duration(time_unit='us') to f64; use --time"),
        ("Datetime(time_unit=f(x), where=3) and (time=True)", "Datetime(time_unit=f(x), where=3) and (--time)"),
        ("https://example.org/?nothing=ours and x=5", "https://example.org/?nothing=ours and x=5"),
    ],
)  # fmt: skip
def test_errors_name_options_on_the_command_line(message: str, shown: str) -> None:
    assert as_options(message, COMMANDS.values()) == shown


def test_options_of_the_published_code_are_translated() -> None:
    given = ["train", "--norm-first", "--use_amp", "--maxlen", "5"]
    assert published_spellings(given) == ["train", "--norm", "pre", "--precision", "bf16", "--maxlen", "5"]
    assert published_spellings(["--no_norm_first"]) == ["--norm", "post"]
    assert published_spellings(["--train", "a.csv"]) == ["--dataset", "a.csv"]
    assert published_spellings(["--train=a.csv"]) == ["--dataset=a.csv"]


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        (["--inference_only=true", "--maxlen", "5"], ["--inference_only", "--maxlen", "5"]),
        (["--inference-only", "True"], ["--inference-only"]),
        (["--inference_only", "false", "--maxlen=5"], ["--maxlen=5"]),
        (["--norm_first=true", "--use_amp", "true"], ["--norm", "pre", "--precision", "bf16"]),
        (["--norm_first", "false", "--use_amp=false", "--multi_gpu=false"], ["--norm", "post"]),
        (["--norm_first=maybe"], ["--norm_first=maybe"]),
    ],
)
def test_flags_take_the_values_that_published_code_gives_them(given: list[str], ours: list[str]) -> None:
    assert published_spellings(given) == ours
    with pytest.raises(ConfigError, match="torchrun --nproc_per_node=N"):
        published_spellings(["train", "--multi_gpu"])


def test_several_devices_are_asked_for_within_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert published_spellings(["train", "--multi_gpu"]) == ["train"]


def test_no_words_name_no_recipe() -> None:
    assert recipe_named_in([]) == RunConfig()


@pytest.mark.parametrize("command", [*_COMMANDS.values(), *PARTS])
def test_the_help_of_an_option_is_one_line_which_tyro_wraps(command: type) -> None:
    """Of a docstring of several lines tyro keeps the breaks, wherever the terminal's are."""
    import ast
    import inspect

    body = ast.parse(inspect.getsource(command)).body[0]
    assert isinstance(body, ast.ClassDef)
    nodes = [each.value for each in body.body[1:] if isinstance(each, ast.Expr)]
    texts = [each.value for each in nodes if isinstance(each, ast.Constant)]
    assert len(texts) >= len(dataclasses.fields(command)) - 1
    assert not [text for text in texts if "\n" in text]


@pytest.mark.parametrize("pair", [["--norm_first", "--norm", "post"], ["--precision=fp16", "--use-amp"]])
def test_two_spellings_of_one_setting_are_refused(pair: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"both set --(norm|precision)\. Remove one"):
        published_spellings(["train", "--train_dir", "x", *pair])


@pytest.mark.parametrize("words", [["--train_dir", ""], ["--train_dir="], ["--train_dir", "x", "--recipe="]])
def test_an_empty_value_is_refused(words: list[str]) -> None:
    assert "a value is empty" in str(misspelt(["train", *words], COMMANDS))


def test_seeds_need_a_number() -> None:
    for words in (["--seeds"], ["--seeds", "--train_dir", "x"]):
        assert "a value is empty after --seeds" in str(
            misspelt(["reproduce", "ml-1m", *words], {"reproduce": Reproduce})
        )
