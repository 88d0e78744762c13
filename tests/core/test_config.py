"""Settings: merged in order, closed to unknown keys, all problems in one message."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from siamese_diffusion.core.config import (
    Settings,
    asked,
    build,
    changed_keys,
    flatten,
    mapping_to_yaml,
    nearest,
    parse_override,
    read_yaml,
    resolve,
    to_yaml,
)
from siamese_diffusion.core.errors import ConfigError


class Engine(Settings):
    steps: int = Field(10, ge=1)
    rate: float = 1e-5
    kind: Literal["plain", "fancy"] = "plain"
    betas: tuple[float, float] = (0.9, 0.999)
    limit: float | None = None


class Car(Settings):
    name: str = "car"
    engine: Engine = Engine(steps=20, rate=0.5)
    spare: Engine | None = None

    @model_validator(mode="after")
    def _fits(self) -> Car:
        if self.name == "broken":
            raise ValueError(f"name '{self.name}' does not drive")
        return self


def test_later_sources_win_key_by_key(tmp_path: Path) -> None:
    file = tmp_path / "car.yaml"
    file.write_text("engine:\n  steps: 3\n  kind: fancy\n")
    car = resolve(
        Car,
        {"name": "preset", "engine": {"steps": 2, "rate": 0.1}},
        file=file,
        overrides=["engine.kind=plain", "engine.limit=1e-3"],
    )
    assert car == Car(name="preset", engine=Engine(steps=3, rate=0.1, limit=0.001))


def test_a_section_given_in_part_keeps_the_defaults_of_its_owner() -> None:
    # Engine() alone has steps 10 and rate 1e-5.
    assert build(Car, {"engine": {"kind": "fancy"}}).engine == Engine(
        steps=20, rate=0.5, kind="fancy"
    )
    assert resolve(Car, overrides=["engine.limit=2"]).engine.steps == 20


def test_a_whole_section_may_be_given_where_the_default_is_none() -> None:
    spare = build(Car, {"spare": {"steps": 5}}).spare
    assert spare is not None and spare.steps == 5


def test_what_was_asked_holds_nothing_that_was_not(tmp_path: Path) -> None:
    content = asked({"name": "a"}, overrides=["engine.steps=4", "engine.rate=1e-4"])
    assert content == {"name": "a", "engine": {"steps": 4, "rate": 0.0001}}
    file = tmp_path / "asked.yaml"
    file.write_text(mapping_to_yaml(content))
    assert read_yaml(file) == content


def test_the_preset_is_not_changed_by_overrides() -> None:
    preset: dict[str, object] = {"engine": {"steps": 2}}
    asked(preset, overrides=["engine.steps=3", "name=b"])
    assert preset == {"engine": {"steps": 2}}


def test_all_problems_are_told_at_once_with_what_was_given() -> None:
    content = {"nam": "x", "engine": {"stepz": 1, "steps": 0, "kind": "fency", "rate": "fast"}}
    with pytest.raises(ConfigError) as caught:
        build(Car, content)
    lines = caught.value.message.splitlines()
    assert len(lines) == 5
    text = caught.value.message
    assert "unknown setting 'nam'; did you mean 'name'? (valid here: engine, name, spare)" in text
    assert "unknown setting 'engine.stepz'; did you mean 'steps'?" in text
    assert "setting 'engine.steps': " in text and "(given: 0)" in text
    assert "'plain' or 'fancy' (given: 'fency')" in text
    assert "(given: 'fast')" in text


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_numbers_must_be_finite(value: str) -> None:
    with pytest.raises(ConfigError, match=r"'engine\.rate'.*finite number \(given: -?(nan|inf)\)"):
        resolve(Car, overrides=[f"engine.rate={value}"])


def test_a_rule_over_several_keys_says_its_sentence_alone() -> None:
    with pytest.raises(ConfigError, match=r"^name 'broken' does not drive$"):
        build(Car, {"name": "broken"})


def test_a_value_in_the_place_of_a_section_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"setting 'engine'.*\(given: 5\)"):
        resolve(Car, overrides=["engine=5"])


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Car().name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1", {"a": 1}),
        ("a.b.c=1e-5", {"a": {"b": {"c": 1e-5}}}),
        ("a=1.0e-5", {"a": 1e-5}),
        ("a=true", {"a": True}),
        ("a=null", {"a": None}),
        ("a=", {"a": None}),
        ("a=[0.8, 1.2]", {"a": [0.8, 1.2]}),
        ("a=x=y", {"a": "x=y"}),
        (" a = A photo of a polyp.", {"a": "A photo of a polyp."}),
        ("a='7'", {"a": "7"}),
        ("a='1e-5'", {"a": "1e-5"}),
        ("a=infinity", {"a": "infinity"}),
    ],
)
def test_an_override_is_read_as_yaml(text: str, expected: dict[str, object]) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["train.seed", "=3", " =3"])
def test_an_override_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{text}' is not a setting") as caught:
        parse_override(text)
    assert "--set section.key=value" in str(caught.value.hint)


def test_an_override_that_is_not_yaml_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the value of 'a=\[1, 2' is not YAML"):
        parse_override("a=[1, 2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"config file '.*c\.yaml' cannot be read: .*No such file"),
        (b"a: [1", r"c\.yaml' cannot be read"),
        (b"\xff\xfe\xff", r"c\.yaml' cannot be read"),
        (b"- 1\n", r"c\.yaml' must hold a mapping"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        resolve(Car, file=path)


def test_an_empty_file_asks_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert resolve(Car, file=tmp_path / "c.yaml") == Car()


def test_written_settings_are_read_back_equal(tmp_path: Path) -> None:
    car = Car(engine=Engine(rate=1e-8, betas=(0.1, 0.2), limit=1 / 3), spare=Engine(kind="fancy"))
    (tmp_path / "c.yaml").write_text(to_yaml(car))
    assert resolve(Car, file=tmp_path / "c.yaml") == car


def test_changed_values_are_listed_with_old_and_new() -> None:
    old, new = Car(), Car(name="b", engine=Engine(steps=20, rate=0.5, betas=(0.9, 0.5)))
    assert changed_keys(old, new) == [
        "name: car -> b",
        "engine.betas: [0.9, 0.999] -> [0.9, 0.5]",
    ]
    assert changed_keys(old, Car()) == []


def test_a_section_that_came_or_went_is_listed_by_its_keys() -> None:
    lines = changed_keys(Car(), Car(spare=Engine()))
    assert "spare.steps: None -> 10" in lines


def test_nested_mappings_become_dotted_keys() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == {"a.b": 1, "a.c.d": 2, "e": [3]}


def test_the_nearest_name_is_offered_only_if_it_is_near() -> None:
    assert nearest("siamse", ["siamese", "controlnet"]) == "; did you mean 'siamese'?"
    assert nearest("xyz", ["siamese", "controlnet"]) == ""
