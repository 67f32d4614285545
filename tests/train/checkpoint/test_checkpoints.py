"""A checkpoint is whole or is none, and what is loaded is what was there when it was saved."""

import dataclasses
import os
import random
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.train.checkpoint import writer
from bluejay.train.checkpoint.checkpoints import (
    Checkpoints,
    find_checkpoints,
    named_tensors,
    without_process_group_warning,
)
from bluejay.train.checkpoint.state import DamagedCheckpoint, State
from bluejay.train.optimizer import adamw
from bluejay.train.recipe import Checkpoint, Optimizer


class Trainee:
    """A small model with its optimizer, taking noisy steps."""

    def __init__(self, seed: int) -> None:
        self.model = new_model(GPTConfig(n_layer=1, d_model=16, n_head=2, vocab_size=40, n_ctx=8), seed)
        self.optimizer = adamw(self.model, Optimizer())
        for group in self.optimizer.param_groups:
            group["lr"] = 0.1

    def step(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        self.optimizer.step()

    def copy(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in named_tensors(self.model, self.optimizer).items()}


def state(step: int) -> State:
    return State(step, {}, "", "float32", 0.0)


@pytest.fixture
def trainee() -> Trainee:
    trainee = Trainee(0)
    trainee.step()
    return trainee


@pytest.fixture(autouse=True)
def one_process():
    with without_process_group_warning():
        yield


def make(path, trainee, *numbers, every=1000) -> Checkpoints:
    """Checkpoints of some steps."""
    made = Checkpoints(path / "checkpoints", Checkpoint(every_steps=every))
    for number in numbers:
        made.save(state(number), trainee.model, trainee.optimizer)
    made.wait()
    return made


def test_what_is_loaded_is_what_was_there_although_training_went_on(trainee, tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", Checkpoint())
    there = trainee.copy()
    checkpoints.save(state(1), trainee.model, trainee.optimizer)
    while not checkpoints.writing[1].done():
        trainee.step()
    trainee.step()
    checkpoints.wait()
    other = Trainee(5)
    path, found = checkpoints.newest()
    assert found == state(1)
    checkpoints.load(path, other.model, other.optimizer)
    loaded = named_tensors(other.model, other.optimizer)
    assert loaded.keys() == there.keys()
    assert all(torch.equal(loaded[name], there[name]) for name in there)


def test_any_flipped_byte_and_any_missing_file_is_found(trainee, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "MAX_FILE_BYTES", 5000)
    checkpoints = make(tmp_path, trainee, 1)
    [path] = find_checkpoints(checkpoints.directory)
    files = sorted(path.iterdir())
    assert len(files) > 3
    draw = random.Random(0)
    for file in files:
        whole = file.read_bytes()
        for _ in range(10):
            position = draw.randrange(len(whole))
            file.write_bytes(whole[:position] + bytes([whole[position] ^ 0x40]) + whole[position + 1 :])
            with pytest.raises(DamagedCheckpoint, match=file.name):
                checkpoints.read(path)
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DamagedCheckpoint, match=file.name):
            checkpoints.read(path)
        if file.name != "state.json":
            file.unlink()
            with pytest.raises(DamagedCheckpoint, match=f"{file.name} is missing"):
                checkpoints.read(path)
        file.write_bytes(whole)
    assert checkpoints.read(path) == state(1)


def test_a_damaged_checkpoint_is_set_aside_loudly_and_the_one_before_it_taken(trainee, tmp_path, capsys):
    checkpoints = make(tmp_path, trainee, 3, 4)
    flip(checkpoints.directory / "step-4")
    path, found = checkpoints.newest()
    assert (path.name, found.step) == ("step-3", 3)
    said = capsys.readouterr().err
    assert "WARNING" in said and "step-4.damaged" in said and "resumes from step-3" in said
    assert (checkpoints.directory / "step-4.damaged").is_dir()
    assert [path.name for path in find_checkpoints(checkpoints.directory)] == ["step-3"]
    with pytest.raises(ValueError, match="no checkpoint of step 4; it has 3"):
        checkpoints.at(4)


def test_nothing_begins_anew_where_every_checkpoint_is_damaged(trainee, tmp_path):
    checkpoints = make(tmp_path, trainee, 3, 4)
    for name in ("step-3", "step-4"):
        flip(checkpoints.directory / name)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"there is no older checkpoint; remove .* to start again"):
            checkpoints.newest()


def flip(path, name: str = "*.safetensors") -> None:
    file = next(path.glob(name))
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)


def test_every_so_many_steps_are_kept_for_good_and_the_newest_two(trainee, tmp_path):
    checkpoints = make(tmp_path, trainee, *range(2, 14), every=5)
    assert [path.name for path in find_checkpoints(checkpoints.directory)] == [
        "step-5",
        "step-10",
        "step-12",
        "step-13",
    ]
    assert checkpoints.newest()[1].step == 13
    assert [checkpoints.newest(until, permanent=True)[1].step for until in (13, 10, 9)] == [10, 10, 5]
    assert checkpoints.newest(until=4) is None
    checkpoints.remove_stale(10)
    assert [path.name for path in find_checkpoints(checkpoints.directory)] == ["step-5", "step-10"]


def test_a_checkpoint_stays_as_permanent_as_it_was_when_it_was_written(recipe_file, load_recipe, trainee, tmp_path):
    def save(checkpoints, recipe, *steps):
        for step in steps:
            written = dataclasses.replace(state(step), recipe=dataclasses.asdict(recipe))
            checkpoints.save(written, trainee.model, trainee.optimizer)
        checkpoints.wait()
        return [path.name for path in find_checkpoints(checkpoints.directory)]

    wsd = ("--train.schedule.kind", "wsd", "--train.schedule.cooldown", "0.25", "--train.schedule.warmup", "0")
    often = load_recipe(recipe_file, *wsd, "--checkpoint.every_steps", "4", "--train.tokens", "1280")
    assert often.cooldown_step == 7
    first = Checkpoints(tmp_path / "checkpoints", often.checkpoint, often.cooldown_step)
    assert save(first, often, *range(3, 11)) == ["step-4", "step-7", "step-8", "step-9", "step-10"]
    seldom = load_recipe(recipe_file, *wsd, "--checkpoint.every_steps", "1000", "--train.tokens", "5120")
    second = Checkpoints(tmp_path / "checkpoints", seldom.checkpoint, seldom.cooldown_step)
    assert save(second, seldom, 11, 12, 13) == ["step-4", "step-7", "step-8", "step-12", "step-13"]
    assert second.newest(until=7, permanent=True)[0].name == "step-7"
    flip(tmp_path / "checkpoints" / "step-4", "state.json")
    assert save(second, seldom, 14)[0] == "step-4", "it is known"
    third = Checkpoints(tmp_path / "checkpoints", seldom.checkpoint, seldom.cooldown_step)
    assert save(third, seldom, 15) == ["step-7", "step-8", "step-14", "step-15"]


def test_without_a_marker_there_is_no_checkpoint(trainee, tmp_path):
    checkpoints = make(tmp_path, trainee, 1, 2)
    (checkpoints.directory / "step-2" / "state.json").unlink()
    assert checkpoints.newest()[1].step == 1
    checkpoints.remove_stale(1)
    assert [path.name for path in checkpoints.directory.iterdir()] == ["step-1"]


def test_a_file_with_the_name_of_a_checkpoint_stays_under_another_name(trainee, tmp_path, capsys):
    checkpoints = make(tmp_path, trainee, 1)
    for name in ("step-1.txt", "step-8"):
        (checkpoints.directory / name).write_text("notes")
    (checkpoints.directory / "step-9").symlink_to("nowhere")
    checkpoints.remove_stale(1)
    there = sorted(path.name for path in checkpoints.directory.iterdir())
    assert there == ["step-1", "step-1.txt", "step-8.other", "step-9.other"]
    assert (checkpoints.directory / "step-8.other").read_text() == "notes"
    assert "step-8 is not a checkpoint; renamed to step-8.other" in capsys.readouterr().err


def test_a_full_disk_leaves_the_older_checkpoint_and_nothing_half_written(trainee, tmp_path, file_size_limit):
    checkpoints = make(tmp_path, trainee, 1)
    with file_size_limit(10_000):
        checkpoints.save(state(2), trainee.model, trainee.optimizer)
        with pytest.raises(OSError):
            checkpoints.wait()
    assert [path.name for path in checkpoints.directory.iterdir()] == ["step-1"]
    assert checkpoints.newest()[1].step == 1


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_is_really_full(trainee, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    assert os.system(f"mount -t tmpfs -o size=300k tmpfs {disk}") == 0
    try:
        checkpoints = make(disk, trainee, 1)
        with pytest.raises(OSError, match="No space left"):
            for number in range(2, 30):
                shutil.copytree(checkpoints.directory / "step-1", disk / f"ballast-{number}", dirs_exist_ok=True)
                checkpoints.save(state(number), trainee.model, trainee.optimizer)
                checkpoints.wait()
        assert checkpoints.newest()[1].step >= 1
    finally:
        os.system(f"umount {disk}")


def test_only_what_is_trained_is_saved(trainee, tmp_path):
    trainee.model.embed.requires_grad_(False)
    checkpoints = make(tmp_path, trainee, 1)
    found = dcp.HuggingFaceStorageReader(str(checkpoints.directory / "step-1")).read_metadata().state_dict_metadata
    assert not [name for name in found if "embed" in name]
    assert "model.head.weight" in found


def test_a_checkpoint_can_be_damaged_again_and_again(trainee, tmp_path):
    for name in ("step-2.damaged", "step-2.damaged-2", "step-2.damaged-3"):
        checkpoints = make(tmp_path, trainee, 1, 2)
        [file] = (tmp_path / "checkpoints" / "step-2").glob("*.safetensors")
        file.write_bytes(file.read_bytes()[:-1])
        found = checkpoints.newest()
        assert found is not None and found[0].name == "step-1"
        assert (tmp_path / "checkpoints" / name).is_dir()


def test_checkpoints_are_in_object_storage_as_on_the_disk(objects, trainee, tmp_path):
    settings = Checkpoint(every_steps=3, storage="s3://bucket/run")
    made = Checkpoints(tmp_path / "one", settings)
    for number in (3, 4, 5, 6, 7):
        made.save(state(number), trainee.model, trainee.optimizer)
    made.wait()
    there = trainee.copy()
    stored = {name.removeprefix("bucket/run/"): data for name, data in objects.objects.items()}
    assert stored == {
        path.relative_to(tmp_path / "one").as_posix(): path.read_bytes()
        for path in (tmp_path / "one").rglob("*")
        if path.is_file()
    }
    assert {name.split("/")[0] for name in stored} == {"step-3", "step-6", "step-7"}
    # A host whose disk has nothing goes on from there, but not from what was not finished.
    objects.objects["bucket/run/step-9/part.safetensors"] = b"of a run that was killed"
    elsewhere, other = Checkpoints(tmp_path / "two", settings), Trainee(5)
    path, found = elsewhere.newest()
    assert found == state(7) and elsewhere.at(6)[1] == state(6)
    elsewhere.load(path, other.model, other.optimizer)
    assert all(torch.equal(value, there[name]) for name, value in other.copy().items())
    elsewhere.remove_stale(6)
    assert {name.split("/")[0] for name in elsewhere.storage.files()} == {"step-3", "step-6", "step-9"}
    elsewhere.save(state(9), trainee.model, trainee.optimizer)
    elsewhere.wait()
    assert "step-9/part.safetensors" not in elsewhere.storage.files()


def test_what_is_damaged_on_a_disk_and_whole_in_object_storage_is_fetched_again(objects, trainee, tmp_path, capsys):
    made = Checkpoints(tmp_path / "one", Checkpoint(storage="s3://bucket/run"))
    for number in (3, 4):
        made.save(state(number), trainee.model, trainee.optimizer)
    made.wait()
    flip(tmp_path / "one" / "step-4")
    path, found = made.newest()
    assert found == state(4) and made.at(4)[1] == state(4)
    assert "renamed to step-4.damaged, and fetched again from s3://bucket/run" in capsys.readouterr().err
    for name in [name for name in objects.objects if "step-4/" in name and name.endswith(".safetensors")]:
        objects.objects[name] = objects.objects[name][:-1]
    flip(path)
    assert made.newest()[1] == state(3)


def test_with_object_storage_the_processes_of_each_host_check_all_files_of_its_disk(
    objects, trainee, tmp_path, monkeypatch
):
    monkeypatch.setattr(writer, "MAX_FILE_BYTES", 5000)
    settings = Checkpoint(storage="s3://bucket/run")
    made = Checkpoints(tmp_path / "one", settings)
    made.save(state(1), trainee.model, trainee.optimizer)
    made.wait()
    files = sorted(path.name for path in (tmp_path / "one" / "step-1").glob("*.safetensors"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for number, name in enumerate(files[:2]):
        monkeypatch.setenv("LOCAL_RANK", str(number))
        second_host = Checkpoints(tmp_path / "one", settings)
        second_host.rank, second_host.size = 2 + number, 4
        flip(tmp_path / "one" / "step-1", name)
        assert isinstance(second_host.checked(tmp_path / "one" / "step-1"), DamagedCheckpoint)


def test_what_is_permanent_in_object_storage_stays_although_this_disk_lacks_it(
    objects, recipe_file, load_recipe, trainee, tmp_path
):
    for folder, every, steps in (("one", 2, (2, 3)), ("two", 1000, (4, 5, 6))):
        overrides = ("--checkpoint.every_steps", str(every), "--checkpoint.storage", "s3://bucket/run")
        recipe = load_recipe(recipe_file, *overrides)
        made = Checkpoints(tmp_path / folder, recipe.checkpoint)
        for step in steps:
            written = dataclasses.replace(state(step), recipe=dataclasses.asdict(recipe))
            made.save(written, trainee.model, trainee.optimizer)
        made.wait()
    assert {name.split("/")[0] for name in made.storage.files()} == {"step-2", "step-5", "step-6"}
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["step-5", "step-6"]


def test_object_storage_that_refuses_ends_a_run_with_one_sentence(objects, trainee, tmp_path):
    with pytest.raises(OSError, match="s3://missing/run is not there"):
        Checkpoints(tmp_path / "one", Checkpoint(storage="s3://missing/run"))
    made = Checkpoints(tmp_path / "two", Checkpoint(storage="s3://bucket/run"))
    made.save(state(1), trainee.model, trainee.optimizer)
    made.wait()
    objects.refuses = "step-2/state"
    made.save(state(2), trainee.model, trainee.optimizer)
    with pytest.raises(
        PermissionError, match=r"s3://bucket/run/step-2/state.json cannot be written: the server answers"
    ):
        made.wait()
    assert made.newest()[1] == state(1)


def test_memory_that_copies_are_made_in_again_and_again_holds_the_newest_tensors(trainee, tmp_path):
    made = Checkpoints(tmp_path / "checkpoints", Checkpoint())
    made.stager = DefaultStager(StagingOptions(False, False, False, False))  # as for a GPU, where it is also pinned
    for number in (1, 2, 3):
        made.save(state(number), trainee.model, trainee.optimizer)
        there = trainee.copy()
        trainee.step()
    made.wait()
    other = Trainee(5)
    made.load(made.newest()[0], other.model, other.optimizer)
    assert all(torch.equal(value, there[name]) for name, value in other.copy().items())
