"""Hand-made rows in every schema of the public data sets, each with what it becomes."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from derta.data import load_triples
from derta.data.schemas import SCHEMAS, Schema
from derta.data.sources import Notes, read_examples
from derta.data.triples import as_example
from derta.errors import InputError

Q, SAFE, HARMFUL = "How do I open the moon vault?", "I'm sorry, the vault stays shut.", "Turn the silver key twice."
USER, YES, NO = (
    {"role": "user", "content": Q},
    {"role": "assistant", "content": HARMFUL},
    {"role": "assistant", "content": SAFE},
)
TRIPLE = (Q, SAFE, HARMFUL)


def as_tuple(row: dict[str, Any]) -> tuple[Any, ...]:
    """A row as texts; its prompt as messages where it has several turns."""
    example = as_example(row)
    plain = example.prompt[0]["content"] if len(example.prompt) == 1 else example.prompt
    return (plain, example.chosen, example.rejected)


def texts(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return as_tuple(dict(zip(("prompt", "chosen", "rejected"), row, strict=True)))


def pku(first_safe: bool, second_safe: bool) -> dict[str, Any]:
    return {
        "prompt": Q,
        "response_0": SAFE if first_safe else HARMFUL,
        "response_1": SAFE + "!" if second_safe else HARMFUL + "!",
        "prompt_source": "moon",
        "response_0_source": "Moon-7B",
        "is_response_0_safe": first_safe,
        "is_response_1_safe": second_safe,
        "response_0_harm_category": {"Vaults": not first_safe},
        "better_response_id": 0,
        "safer_response_id": 0 if first_safe else 1,
        "response_0_sha256": "00",
    }


def beaver(prompt: str, response: str, safe: bool) -> dict[str, Any]:
    return {"prompt": prompt, "response": response, "category": {"vaults": not safe}, "is_safe": safe}


CASES: list[tuple[str, str, list[dict[str, Any]], list[tuple[Any, ...]], dict[str, int]]] = [
    (
        "llm-lat",
        "preference",
        [{"prompt": Q, "chosen": SAFE, "rejected": HARMFUL}],
        [TRIPLE],
        {},
    ),
    (
        "helpful",
        "preference",
        [{"prompt": "Name a moon.", "chosen": "Io."}, {"prompt": Q, "chosen": SAFE, "rejected": HARMFUL}],
        [("Name a moon.", "Io.", None), TRIPLE],
        {},
    ),
    (
        "trl-conversational",
        "preference",
        [{"prompt": [USER], "chosen": [NO], "rejected": [YES]}],
        [([USER], [NO], [YES])],
        {},
    ),
    (
        "trl-implicit-prompt",
        "preference",
        [{"chosen": [USER, NO], "rejected": [USER, YES]}],
        [([USER], [NO], [YES])],
        {},
    ),
    (
        "trl-prompt-completion",
        "prompt-completion",
        [{"prompt": "Name a moon.", "completion": "Io."}],
        [("Name a moon.", "Io.", None)],
        {},
    ),
    (
        "trl-prompt-completion-conversational",
        "prompt-completion",
        [{"prompt": [USER], "completion": [NO]}],
        [([USER], [NO], None)],
        {},
    ),
    (
        "circuit-breakers",
        "circuit-breakers",
        [{"category": "vaults", "prompt": Q, "output": HARMFUL, "llama3_output": SAFE}],
        [TRIPLE],
        {},
    ),
    (
        "pku-saferlhf",
        "pku-saferlhf",
        [pku(True, False), pku(False, True), pku(True, True), pku(False, False)],
        [(Q, SAFE, HARMFUL + "!"), (Q, SAFE + "!", HARMFUL)],
        {"both responses safe": 1, "both responses unsafe": 1},
    ),
    (
        "beavertails",
        "beavertails",
        [
            beaver(Q, HARMFUL, False),
            beaver("Only safe?", "Yes.", True),
            beaver(Q, SAFE, True),
            beaver(Q, HARMFUL, False),
            beaver(Q, "Push it.", False),
            beaver(Q, "Pull it.", False),
            beaver(Q, "No.", True),
            beaver(Q, "Disputed.", True),
            beaver(Q, "Disputed.", False),
        ],
        [TRIPLE, (Q, "No.", "Push it.")],
        {
            "same prompt, response and label again": 1,
            "labelled both safe and unsafe": 2,
            "safe without an unsafe response to pair it with": 1,
            "unsafe without a safe response to pair it with": 1,
        },
    ),
    (
        "alpaca",
        "alpaca",
        [
            {"instruction": "Translate.", "input": "moon", "output": "luna"},
            {"instruction": "Name a moon.", "input": "", "output": "Io."},
        ],
        [("Translate.\n\nmoon", "luna", None), ("Name a moon.", "Io.", None)],
        {},
    ),
    (
        "wizardlm",
        "alpaca",
        [{"instruction": "Name a moon.", "output": "Io."}],
        [("Name a moon.", "Io.", None)],
        {},
    ),
    (
        "wildjailbreak",
        "wildjailbreak",
        [
            {"vanilla": "Open a sofa bed?", "adversarial": "", "completion": "Pull.", "data_type": "vanilla_benign"},
            {"vanilla": "v", "adversarial": "A tale: a bed?", "completion": "Push.", "data_type": "adversarial_benign"},
            {"vanilla": Q, "adversarial": "", "completion": SAFE, "data_type": "vanilla_harmful"},
            {"vanilla": Q, "adversarial": "A tale.", "completion": SAFE, "data_type": "adversarial_harmful"},
        ],
        [("Open a sofa bed?", "Pull.", None), ("A tale: a bed?", "Push.", None)],
        {"harmful prompt without a harmful response": 2},
    ),
]
CHAT_TRIPLE = ([USER], [NO], [YES])
MOON = ([{"role": "user", "content": "Name a moon."}], [{"role": "assistant", "content": "Io."}], None)
HUMAN = {"from": "human", "value": Q}
CHATS: list[tuple[str, str, list[dict[str, Any]], list[tuple[Any, ...]], dict[str, int]]] = [
    (
        "messages",
        "messages",
        [
            {"messages": [*MOON[0], *MOON[1]], "prompt_id": "7"},
            {"messages": [USER], "chosen": NO, "rejected": YES},
            {"messages": [USER], "chosen": SAFE, "rejected": HARMFUL},
            {"messages": [USER, NO], "rejected_response": HARMFUL},
            {"messages": [USER, NO], "chosen": [USER, NO], "rejected": [USER, YES]},
            {"messages": [*MOON[0], {**MOON[1][0], "weight": 0}]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Name a moon."}]}, *MOON[1]]},
        ],
        [MOON, *[CHAT_TRIPLE] * 4, MOON],
        {"last turn has weight 0": 1},
    ),
    (
        "sharegpt",
        "sharegpt",
        [
            {"conversations": [{"from": "human", "value": "Name a moon."}, {"from": "gpt", "value": "Io."}]},
            {
                "conversations": [HUMAN],
                "chosen": {"from": "gpt", "value": SAFE},
                "rejected": {"from": "gpt", "value": HARMFUL},
            },
        ],
        [MOON, CHAT_TRIPLE],
        {},
    ),
    (
        "llama-factory",
        "llama-factory",
        [{"instruction": Q, "input": "", "chosen": SAFE, "rejected": HARMFUL}],
        [TRIPLE],
        {},
    ),
]
RELEASE = [
    {"prefix": r"[INST] Name a moon. [\INST]", "text": " Io.<|end_of_text|>", "safe": "false"},
    {"prefix": rf"[INST] {Q} [\INST]", "text": f" {SAFE}<|end_of_text|>", "safe": "false"},
    {"prefix": rf"[INST] {Q} [\INST] Turn the", "text": f" {SAFE}</s>", "safe": "false"},
    {"prefix": f"[INST] \n{Q}\n\n [\\INST]", "text": f" {HARMFUL}<|end_of_text|>\n", "safe": "true"},
]


@pytest.mark.parametrize(
    ("schema", "rows", "becomes", "skipped"),
    [case[1:] for case in CASES + CHATS],
    ids=[case[0] for case in CASES + CHATS],
)
@pytest.mark.parametrize("named", [False, True], ids=["recognised", "named"])
def test_rows_become(
    tmp_path: Path,
    schema: str,
    rows: list[dict[str, Any]],
    becomes: list[tuple[Any, ...]],
    skipped: dict[str, int],
    named: bool,
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    name = schema if named else "auto"
    assert [as_tuple(row) for row in load_triples(path, schema=name)] == list(map(texts, becomes))
    notes = Notes()
    list(read_examples(path, notes, schema=name))
    assert {reason: count for reason, count in notes.skipped.items() if count} == skipped
    assert (notes.schema, notes.columns) == (schema, {})


def test_every_schema_has_a_case() -> None:
    assert {schema.name for schema in SCHEMAS} - {"derta-release"} == {case[1] for case in CASES + CHATS}


def test_wildjailbreak_as_it_is_published(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(
        "vanilla\tadversarial\tcompletion\tdata_type\n"
        'Open a sofa bed?\t\t"Pull.\n""Hard.""\tThen rest."\tvanilla_benign\n'
        f"{Q}\t\t{SAFE}\tvanilla_harmful\n"
    )
    assert [as_tuple(row) for row in load_triples(path)] == [("Open a sofa bed?", 'Pull.\n"Hard."\tThen rest.', None)]


def test_booleans_may_be_words_as_in_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "beaver.csv"
    path.write_text(f'prompt,response,category,is_safe\n{Q},"{SAFE}",c,True\n{Q},{HARMFUL},c,False\n')
    assert [as_tuple(row) for row in load_triples(path)] == [TRIPLE]


def test_two_spellings_of_a_response_are_one(tmp_path: Path) -> None:
    """What one annotator calls unsafe is never learnt, whatever white space another had."""
    path = tmp_path / "beaver.jsonl"
    again = (beaver(f"{Q} ", HARMFUL + " ", True), beaver(Q, SAFE, True), beaver(Q, "Use the hidden ladder.", False))
    rows = [beaver(Q, HARMFUL, False), *again, beaver(Q, "Le caf\u00e9.", True), beaver(Q, "Le cafe\u0301.", False)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [as_tuple(row) for row in load_triples(path)] == [(Q, SAFE, "Use the hidden ladder.")]
    notes = Notes()
    list(read_examples(path, notes))
    assert notes.skipped["labelled both safe and unsafe"] == 4


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": Q, "chosen": HARMFUL, "rejected": None, "is_safe": False},
        {"instruction": Q, "output": HARMFUL, "rejected": None, "label": "unsafe"},
        *(
            {"prompt": Q, "completion": HARMFUL, name: "unsafe"}
            for name in ("isSafe", "safetyLabel", "is-safe", "harm")
        ),
        *({"prompt": Q, "completion": HARMFUL, name: True} for name in ("flagged", "isHarmful", "response.unsafe")),
    ],
)
def test_a_response_that_a_column_judges_is_not_learnt_regardless(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="seems to judge the response"):
        load_triples(path)


def test_a_verdict_beside_both_responses_or_none_is_no_reason_to_stop(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": Q, "chosen": SAFE, "rejected": HARMFUL, "is_safe": False},
        {"prompt": "Name a moon.", "chosen": "Io.", "rejected": None, "is_safe": None},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [as_tuple(row) for row in load_triples(path)] == [TRIPLE, ("Name a moon.", "Io.", None)]


def test_conversations_in_a_table_are_no_text(tmp_path: Path) -> None:
    def table(name: str, **columns: Any) -> Path:
        cells = ('"' + json.dumps(value).replace('"', '""') + '"' for value in columns.values())
        (tmp_path / name).write_text(",".join(columns) + "\n" + ",".join(cells) + "\n")
        return tmp_path / name

    preference = table("p.csv", prompt=[USER], chosen=[NO], rejected=[YES])
    (row,) = load_triples(preference)
    assert (row["prompt"], row["chosen"], row["rejected"]) == ([USER], [NO], [YES])
    (row,) = load_triples(table("c.csv", prompt=[USER], completion=[NO]))
    assert (row["prompt"], row["chosen"]) == ([USER], [NO])
    weighed = table("w.csv", messages=[USER, {**YES, "weight": 0}])
    with pytest.raises(InputError, match="none of its rows can be trained on"):
        load_triples(weighed)
    preference.write_text(preference.read_text().replace('""', "'"))
    with pytest.raises(InputError, match=r"p.csv:2: prompt must be a list of messages; as JSON it can't be read"):
        load_triples(preference)


def test_whole_conversations_keep_the_system_prompt_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"messages": [USER], "chosen": [USER, NO], "rejected": [USER, YES], "system": "Be kind."}
    path.write_text(json.dumps(row) + "\n")
    (row,) = load_triples(path)
    assert row["prompt"] == [{"role": "system", "content": "Be kind."}, USER]


def test_two_columns_of_one_name_stop_in_parquet_too(tmp_path: Path) -> None:
    values = [pa.array([text]) for text in (Q, SAFE, HARMFUL)]
    pq.write_table(pa.table(values, names=["prompt", "chosen", "chosen"]), tmp_path / "twice.parquet")
    with pytest.raises(InputError, match="column 'chosen' occurs twice"):
        load_triples(tmp_path / "twice.parquet")


def test_released_training_rows(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in RELEASE))
    dataset = load_triples(path)
    expected = [("Name a moon.", "Io.", None), (Q, SAFE, None), (Q, SAFE, None), (Q, None, HARMFUL)]
    assert list(map(as_tuple, dataset)) == expected
    assert dataset["harmful_prefix"] == [None, "", "Turn the", None]


def test_released_rows_of_harmful_prompts_are_known_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in reversed(RELEASE)))
    assert load_triples(path)["harmful_prefix"] == [None, "Turn the", "", None]


def test_released_rows_with_safe_turned_round_stop(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    turned = [{**row, "safe": "true" if row["safe"] == "false" else "false"} for row in RELEASE[1:2]]
    path.write_text("".join(json.dumps(row) + "\n" for row in turned))
    with pytest.raises(InputError, match=r"train.jsonl: 1 of 1 harmful responses for RTO read like refusals"):
        load_triples(path)


def test_the_four_released_rows(released_rows: Path) -> None:
    helpful, cut_at_start, cut_later, rto = map(as_example, load_triples(released_rows))
    assert helpful.prompt[0]["content"] == "Suggest a suitable card game for a birthday party with 10 year old kids."
    assert (helpful.rejected, helpful.harmful_prefix) == (None, None)
    assert (helpful.chosen or "").startswith("Uno is")
    assert (helpful.chosen or "").endswith("during the party.")
    assert cut_at_start.harmful_prefix == ""
    assert cut_at_start.prompt == cut_later.prompt
    assert cut_later.harmful_prefix.startswith("To trick the system")
    assert cut_later.harmful_prefix.endswith("- Utilize a")
    assert cut_later.chosen.startswith("I'm sorry, I cannot assist with that.")
    assert rto.chosen is None
    assert rto.rejected.startswith("Tips for successful")
    assert rto.rejected.endswith("just a warning.")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prefix": "no marks", "text": "t", "safe": "true"}, r":1: prefix must hold its prompt between \[INST\]"),
        ({"prefix": r"[INST]  [\INST]", "text": "t", "safe": "true"}, ":1: prefix must hold its prompt"),
        ({"prefix": r"[INST] p [\INST]", "text": "t", "safe": "maybe"}, ":1: safe must be true or false, not 'maybe'"),
        ({"prefix": r"[INST] p [\INST]", "text": " </s>", "safe": "false"}, ":1: text is empty"),
        ({"prefix": 3, "text": "t", "safe": "false"}, ":1: prefix must be text, not a number"),
        ({"prompt": Q, "output": HARMFUL, "llama3_output": ""}, ":1: llama3_output is empty"),
        ({"prompt": Q, "output": 3, "llama3_output": SAFE}, ":1: output must be text, not a number"),
        ({"prompt": Q, "completion": " "}, ":1: completion is empty"),
        ({"instruction": Q, "input": 3, "output": SAFE}, ":1: input must be text, not a number"),
        ({"instruction": Q, "output": None}, ":1: output must be text, not null"),
        (beaver(Q, "", True), ":1: response is empty"),
        ({**beaver(Q, SAFE, True), "is_safe": "perhaps"}, ":1: is_safe must be true or false, not 'perhaps'"),
        ({**pku(True, False), "is_response_1_safe": None}, ":1: is_response_1_safe must be true or false, not 'None'"),
        ({**pku(True, False), "response_1": 1}, ":1: response_1 must be text, not a number"),
        (
            {"vanilla": "v", "adversarial": "", "completion": "c", "data_type": "vanila_benign"},
            ":1: data_type must be one of .* not 'vanila_benign' .did you mean 'vanilla_benign'",
        ),
        (
            {"vanilla": "v", "adversarial": "", "completion": "c", "data_type": "adversarial_benign"},
            ":1: adversarial is empty",
        ),
    ],
)
def test_bad_fields_are_named_as_the_file_names_them(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=message):
        load_triples(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["promt", "chosen", "rejected"], "unknown column 'promt' .did you mean 'prompt'"),
        (["prompt", "chosn", "rejected"], "unknown column 'chosn' .did you mean 'chosen'"),
        (["prompt", "chosen", "rejcted"], "unknown column 'rejcted' .did you mean 'rejected'"),
        (["prompt", "chosen", "Rejected"], "unknown column 'Rejected' .did you mean 'rejected'"),
        (["prompt", "chosen", " rejected"], "unknown column ' rejected' .did you mean 'rejected'"),
        (["prompt", "chosen", "rejected_response"], "unknown column 'rejected_response' .did you mean 'rejected'"),
        (["prompt", "chosen", "harmful_prefx"], "unknown column 'harmful_prefx' .did you mean 'harmful_prefix'"),
        (["prompt", "complétion"], "unknown column 'complétion' .did you mean 'completion'"),
        (["instruction", "ouput"], "unknown column 'ouput' .did you mean 'output'"),
        (["instruction", "output", "inputs"], "unknown column 'inputs' .did you mean 'input'"),
        (["prompt", "output", "llama_output"], "unknown column 'llama_output' .did you mean 'llama3_output'"),
        (["prompt", "rejected"], "column 'chosen' is missing"),
        (["prompt", "response"], "column 'is_safe' is missing: schema beavertails needs prompt, response, is_safe"),
        (["alpha", "beta"], "columns 'alpha', 'beta' fit no schema; rename them to prompt, chosen and rejected"),
        (["a\nb\x1b"], r"columns 'a\\nb\\x1b' fit no schema"),
        (["question"], "columns 'question' are those of evaluation data .*never train on it"),
        (["question", "answer"], ".*evaluation data"),
        (["question", "chosen", "rejected"], ".*evaluation data"),
        (["id", "risk_area", "types_of_harm", "specific_harms", "question"], ".*evaluation data"),
        (
            ["Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString", "BehaviorID"],
            ".*evaluation data",
        ),
        (["id", "prompt", "type", "label", "focus", "note"], ".*evaluation data"),
        (["prompt", "category"], ".*evaluation data"),
        (["prompts"], ".*evaluation data"),
        (["goal", "target"], ".*evaluation data"),
    ],
)
def test_columns_that_are_wrong(tmp_path: Path, columns: list[str], message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(dict.fromkeys(columns, "text")) + "\n")
    with pytest.raises(InputError, match=rf"rows.jsonl:1: {message}") as caught:
        load_triples(path)
    assert "\n" not in str(caught.value)


def test_columns_are_checked_in_every_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": "p", "chosen": "r"}, {"prompt": "p", "chosen": "r", "rejcted": "h"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"rows.jsonl:2: unknown column 'rejcted'"):
        load_triples(path)


def test_unknown_columns_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "p", "chosen": "r", "id": 1, "source": "s", "moon_phase": "full"}) + "\n")
    load_triples(path)
    assert [record.getMessage() for record in caplog.records] == [f"{path}: ignored unknown columns 'moon_phase'"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [USER]}, ":1: messages must end with a turn of the assistant's"),
        ({"messages": "Hi."}, ":1: messages must be a list of messages, not text"),
        ({"messages": [{"role": "tool", "content": "x"}]}, r":1: messages\[0\].role must be one of .* not 'tool'"),
        ({"messages": [USER, NO], "label": False}, ":1: column 'label' seems to judge the response"),
        ({"conversations": [HUMAN, {"from": "gpt", "value": ""}]}, r":1: conversations\[1\].value is empty"),
        ({"dialogue": [USER, NO]}, ":1: column 'dialogue' looks like a chat by role and content; rename it"),
        ({"prompt": ["p", "q"], "chosen": ["r", "s"]}, ":1: looks like a table written column by column"),
        ({"prompt": f"\n\nHuman: {Q}\n\nAssistant:", "chosen": SAFE}, ":1: column 'prompt' looks like a transcript"),
        ({"dialogue": f"Human: {Q} Assistant: {SAFE}"}, ":1: column 'dialogue' looks like a transcript"),
        ({"chosen": f"Human: {Q} Assistant: {SAFE}", "rejected": "b"}, ":1: column 'chosen' looks like a transcript"),
    ],
)
def test_chats_that_are_wrong(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=message) as caught:
        load_triples(path)
    assert "\n" not in str(caught.value)


RARE: dict[str, dict[str, Any]] = {
    "kto": {"prompt": Q, "completion": HARMFUL, "label": False},
    "question-answer-label": {"question": Q, "answer": HARMFUL, "label": "unsafe"},
    "dolly": {"instruction": Q, "context": "", "response": HARMFUL, "category": "open"},
    "openai": {"input": {"messages": [USER]}, "preferred_output": [NO], "non_preferred_output": [YES]},
}


@pytest.mark.parametrize("row", RARE.values(), ids=RARE)
def test_a_form_that_nobody_reads_stops(row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=r"rows\.jsonl:1: "):
        load_triples(path)


@pytest.mark.parametrize("schema", SCHEMAS, ids=[schema.name for schema in SCHEMAS])
def test_examples_have_their_schema(schema: Schema) -> None:
    notes = Notes()
    assert list(read_examples(schema.example, notes))
    assert notes.schema == schema.name
    assert not notes.skipped.total()


def test_a_schema_from_outside_the_package_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "moon.py").write_text(
        "from derta.data.schemas import Schema, each, text\n"
        "SCHEMA = Schema('moon', 'moons', ('ask', 'no', 'yes'), (), each(lambda row: {'prompt': text(row, 'ask'), "
        "'chosen': text(row, 'no'), 'rejected': text(row, 'yes')}), [])\n"
    )
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"ask": Q, "no": SAFE, "yes": HARMFUL}) + "\n")
    assert [as_tuple(row) for row in load_triples(path, schema=str(tmp_path / "moon.py"))] == [TRIPLE]


def test_a_schema_that_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "p", "chosen": "r"}\n')
    with pytest.raises(InputError, match=r"--schema: unknown schema 'alpac' .did you mean 'alpaca'"):
        load_triples(path, schema="alpac")
    with pytest.raises(InputError, match=r"rows.jsonl:1: column 'instruction' is missing: schema alpaca needs"):
        load_triples(path, schema="alpaca")
