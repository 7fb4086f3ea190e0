"""The contract kit: the built-in components keep it, and who breaks a promise is caught by the check that names it."""

import importlib
import inspect
import sys
from pathlib import Path

import pytest
import torch

from harness.plugins.discovery import plugins
from harness.plugins.registry import Entry
from harness.system.packages import lacking_package
from harness.testing import ExecutorContract, FormatContract, MethodContract, PoolContract
from harness.testing.checking import CONTRACTS, checkables

sys.path.insert(0, str(Path(__file__).parent))  # where targets of entries are imported from
broken = importlib.import_module("broken")

SMALL = "convnet[width=4,depth=2]"
MTT = "experts=2,train_epochs=3,steps=2,expert_epochs=1,max_start_epoch=2"
BUILT_IN = {
    "method": [
        "dc[batch_real=8,outer=2,inner=1]",
        "dsa[batch_real=8,outer=2,inner=1]",
        "dcc[batch_real=8,outer=2,inner=1,warm_outer=1,warm_inner=1]",
        "dsac[batch_real=8,outer=2,inner=1,warm_outer=0]",
        "idc[inner=2,batch_real=6,n_data=16,batch_train=8]",
        "dm[batch_real=8]",
        "ncfm[batch_real=8,frequencies=16,pairs=2,train_epochs=2,sampler=true]",
        "ncfm[batch_real=8,frequencies=16,networks=fresh,as=pixels]",
        "cafe[batch_real=8,batch_query=4,most_updates=3,most_epochs=2]",
        "frepo[networks=2,batch_real=8,max_updates=2]",
        "kip[batch_real=9,learn_labels=true]",
        "dd[epochs=2,batch_real=8]",
        f"mtt[{MTT}]",
        f"mtt[{MTT},unroll=constant,labels=expert]",
        f"mtt[{MTT},flat_radius=0.01,average=0.9]",
        "random",
        f"herding[network={SMALL},epochs=2]",
        f"k-center[network={SMALL},epochs=2]",
        "whole",
        "rded[candidates=6,crops=2,teacher-epochs=2]",
        "sre2l[teacher-epochs=2]",
    ],
    "pool": [
        "single",
        "total-random",
        "main-model",
        "main-similar",
        "main-similar[preset=as-released]",
        "mix[of=convnet:0.5+mlp:0.5]",
        "adaptive",
        "adaptive[strategy=conflict,warmup=3]",
        "pair",
        "pair[of=mlp+convnet+lenet,balance=size]",
        "early-stage",
        "early-stage[of=convnet+mlp,epochs=0]",
    ],
    "parametrisation": [
        *(
            "pixels",
            "unit-pixels",
            "multi-formation",
            "multi-formation[factor=3]",
            "downsample",
            "downsample[factor=5]",
        ),
    ],
    "evaluator": [
        "plain[epochs=3]",
        "plain[protocol=dsa,epochs=3]",
        "plain[protocol=mtt,epochs=3]",
        "plain[protocol=ncfm,epochs=3]",
        "plain[protocol=dd,epochs=3]",
        "plain[protocol=frepo,epochs=3]",
        "kernel[epochs=3]",
        "continual[steps=2,epochs=2]",
        "kd[epochs=3,protocol=quick,teacher=mlp[width=8]]",
    ],
    "architecture": [
        *("mlp", "convnet", "convnet[norm=batch]", "lenet", "alexnet", "vgg11", "resnet18", "frepo-net"),
        "torchvision[model=mobilenet_v3_small]",
        *([] if lacking_package({"timm": "ddbench[timm]"}) else ["timm[model=test_resnet]"]),
    ],
    "dataset": ["digits"],
    "format": ["safetensors", "vico", "npz", "images", "mtt", "ddranking", "idc[factor=2]"],
    "report": ["page", "robust-scores"],
    "executor": ["local", "inline"],
    "tracker": ["tensorboard"],
    "metric": [
        "ece",
        "class-accuracy",
        "corrupted",
        "fgsm",
        "pgd[steps=2]",
        "membership",
        "membership[threshold=best]",
    ],
}


def test_methods_that_take_long_are_checked_with_smaller_options_unless_others_are_typed():
    names = {component.name.partition("[")[0]: component.name for component in checkables(plugins(), "mpdd", ())}
    assert names["mtt"] == f"mtt[{MTT}]"
    assert names["dm"] == "dm"
    assert [each.name for each in checkables(plugins(), "mpdd", ["mtt[steps=3]"])] == ["mtt[steps=3]"]
    assert [each.name for each in checkables(plugins(), "mpdd", ["mtt"])] == [names["mtt"]]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in BUILT_IN.items() for name in names])
def test_the_built_in_components_keep_it(kind, name):
    contract = CONTRACTS[kind]()
    contract.name = name
    outcomes = {outcome.check: outcome for outcome in contract.outcomes()}
    assert not [outcome for outcome in outcomes.values() if outcome.status == "FAILED"]
    assert sum(outcome.status == "ok" for outcome in outcomes.values()) >= 6


class TestAsPytestRunsIt(PoolContract):
    name = "single"


class TestSeveralImagesAClass(MethodContract):
    name = "dm[batch_real=8]"
    ipc = 2


class TestNetworksThatCoupleImages(MethodContract):
    name = "dm[batch_real=8]"
    draws = "convnet[width=4,depth=2,norm=batch]"


class TestMTTFiles(FormatContract):
    name = "mtt"

    @pytest.fixture(autouse=True)
    def _files(self, tmp_path, monkeypatch):
        torch.save(torch.rand(3, 1, 16, 16), tmp_path / "images_best.pt")
        torch.save(torch.arange(3), tmp_path / "labels_best.pt")
        monkeypatch.setattr(type(self), "example", tmp_path)


# --- who breaks a promise is caught ---

DRAWING = {
    *("test_distribution_sums_to_one", "test_draws_are_seeded", "test_draws_of_a_step", "test_networks_start_as_asked"),
}
"""The checks that draw: a pool without a distribution fails them all."""
CAUGHT = {
    "pool": {
        "HalfPool": DRAWING,
        "UnknownPool": DRAWING,
        "CountingPool": {"test_distribution_is_a_function"},
        "LuckyPool": {"test_distribution_is_a_function", "test_state_round_trips"},
        "UndrawnMainPool": {"test_main_is_an_architecture"},
        "ForgetfulPool": {"test_state_round_trips"},
        "DividingPool": {"test_any_observation_leaves_a_distribution"},
        "ClimbingPool": set(),
        "StrangerPool": {"test_draws_of_a_step"},
        "OtherStartPool": {"test_networks_start_as_asked"},
        "UnseededStartPool": {"test_networks_start_as_asked"},
        "NeedyProbePool": {"test_probes_can_be_made"},
        "MovingProbePool": {"test_probes_can_be_made"},
        "LuckyProbePool": {"test_probes_lead_to_the_same"},
        "ForgetfulProbePool": {"test_probes_lead_to_the_same"},
        "RaisingOptionsPool": {"test_odd_options_are_refused"},
        "UndescribedPool": {"test_options_are_described"},
        "OneWayPool": {"test_options_are_read_back"},
        "VersionlessPool": {"test_version"},
    },
    "method": {
        "IdleMethod": {"test_a_step_changes_the_images", "test_learned_images_are_the_sets"},
        "CopyingMethod": {"test_learned_images_are_the_sets"},
        "ClockMethod": {
            "test_same_seed_same_numbers",
            "test_state_round_trips",
            "test_state_is_all_there_is",
            "test_total_is_not_used",
        },
        "ForgetfulMethod": {"test_state_round_trips", "test_state_is_all_there_is"},
        "GlobalMethod": {"test_state_is_all_there_is"},
        "SharingMethod": {"test_state_round_trips"},
        "LiveMethod": {"test_a_step_changes_the_images", "test_sets_are_copies"},
        "UndrawingMethod": {"test_networks_as_declared"},
        "HurriedMethod": {"test_total_is_not_used"},
        "InfiniteMethod": {"test_gradients_are_finite"},
        "NeedyMethod": {"test_needs_are_known_ahead"},
        "UnsoundMethod": {"test_needs_are_known_ahead"},
        "SparingMethod": {"test_begins_with_a_whole_set", "test_a_step_changes_the_images", "test_colour_images"},
        "GreyMethod": {"test_colour_images"},
        "LazyMethod": {"test_work_is_a_number"},
        "MatchingMethod": set(),
        "LivingMethod": set(),
        "ExtraTrainingMethod": {"test_live_networks_go_on"},
        "CollectiveMethod": set(),
        "UnfrozenMethod": {"test_no_class_has_batch_statistics_of_its_own"},
        "UnfrozenCollectiveMethod": {"test_no_class_has_batch_statistics_of_its_own"},
        "JointMethod": {"test_no_class_has_batch_statistics_of_its_own"},
        "SlicingMethod": {
            "test_batch_statistics_spoil_no_gradient",
            "test_no_class_has_batch_statistics_of_its_own",
        },
        "PackedMethod": set(),
        "FactorisedMethod": set(),
        "UnseededFactorMethod": {
            "test_same_seed_same_numbers",
            "test_state_round_trips",
            "test_state_is_all_there_is",
            "test_total_is_not_used",
        },
        "PerImageMethod": {
            "test_batch_norm",
            "test_batch_statistics_spoil_no_gradient",
            "test_no_class_has_batch_statistics_of_its_own",
        },
        "ReseedingMethod": {"test_dropout"},
    },
    "parametrisation": {
        "SparingParametrisation": {
            "test_stores_ipc_images_of_each_class",
            "test_decodes_to_training_images",
            "test_stays_in_range_when_learned",
            "test_labels_follow_their_images",
            "test_a_shape_that_does_not_divide",
        },
        "GlaringParametrisation": {
            "test_decodes_to_training_images",
            "test_stays_in_range_when_learned",
            "test_a_shape_that_does_not_divide",
        },
        "WildParametrisation": {"test_stays_in_range_when_learned"},
        "DrawingParametrisation": {
            "test_same_tensors_same_images",
            "test_labels_follow_their_images",
            "test_gradients_reach_every_tensor",
        },
        "UnseededParametrisation": {"test_starts_are_seeded"},
        "MixingParametrisation": {"test_labels_follow_their_images"},
        "DetachingParametrisation": {"test_gradients_reach_every_tensor"},
        "FreeParametrisation": {"test_storage_counts_every_tensor"},
        "LabelledParametrisation": set(),
        "UndeclaredParametrisation": {
            "test_gradients_reach_every_tensor",
            "test_decodes_to_training_images",
            "test_stays_in_range_when_learned",
            "test_a_shape_that_does_not_divide",
        },
        "UnboundParametrisation": {"test_stays_in_range_when_learned"},
        "EvenParametrisation": {"test_a_shape_that_does_not_divide"},
    },
    "format": {
        "GreedyFormat": {"test_recognises_its_own_files"},
        "ShyFormat": {"test_recognises_its_own_files"},
        "LossyFormat": {"test_round_trip", "test_encoded_sets"},
        "SuffixingFormat": {
            "test_recognises_its_own_files",
            "test_round_trip",
            "test_losses_are_named",
            "test_encoded_sets",
            "test_reading_is_repeatable",
            "test_damaged_files",
            "test_runs_no_code",
        },
        "SilentFormat": {"test_losses_are_named", "test_encoded_sets"},
        "UndecodedFormat": {"test_encoded_sets"},
        "WordyFormat": {"test_refusals_are_a_line"},
        "CachingFormat": {"test_reading_is_repeatable"},
        "TrustingFormat": {"test_damaged_files"},
        "PicklingFormat": {"test_runs_no_code"},
    },
    "evaluator": {
        "SilentEvaluator": {"test_protocol_is_one_line"},
        "BackwardEvaluator": {"test_students_come_in_order", "test_same_seed_same_numbers"},
        "PercentEvaluator": {
            "test_students_come_in_order",
            "test_another_seed_other_students",
            "test_soft_labels_and_step_sizes",
            "test_kinds_of_labels",
            "test_schedules",
        },  # fmt: skip,
        "RoundingEvaluator": {"test_accuracy_is_of_the_scored_images", "test_another_seed_other_students"},
        "UnevenEvaluator": {"test_metrics_are_named_numbers"},
        "MisnamingEvaluator": {"test_metrics_are_named_numbers"},
        "CrowdedEvaluator": {"test_students_do_not_depend_on_each_other", "test_same_seed_same_numbers"},
        "ChanceEvaluator": {"test_students_do_not_depend_on_each_other", "test_same_seed_same_numbers"},
        "ConstantEvaluator": {"test_another_seed_other_students"},
        "WritingEvaluator": {"test_the_set_is_left_alone"},
        "HardEvaluator": {"test_soft_labels_and_step_sizes", "test_kinds_of_labels"},
        "EagerEvaluator": {"test_kinds_of_labels"},
        "StrictEvaluator": set(),
        "OrderlessEvaluator": {"test_schedules"},
        "MintingEvaluator": {"test_artifacts"},
        "NothingToDoEvaluator": {"test_work_is_a_number"},
        "MisquotingEvaluator": {"test_protocols_have_constants"},
        "NowhereEvaluator": {"test_what_it_is_not_applicable_to"},
        "VagueEvaluator": {"test_real_data_is_declared"},
    },
    "architecture": {
        "MapsArchitecture": {"test_features_and_classifier"},
        "SleepingArchitecture": {"test_in_training"},
        "UnseededArchitecture": {"test_weights_are_seeded"},
        "DeafArchitecture": {"test_gradients_are_finite", "test_taps_are_differentiable"},
        "OverwritingArchitecture": {"test_taps"},
        "NotingArchitecture": {
            "test_features_and_classifier",
            "test_taps",
            "test_state_round_trips",
            "test_images_do_not_matter_to_each_other",
        },  # fmt: skip,
        "TogetherArchitecture": {"test_images_do_not_matter_to_each_other"},
        "ChoosyArchitecture": {"test_odd_shapes_are_refused"},
        "DrawingArchitecture": {"test_global_generator_is_left_alone"},
    },
    "dataset": {
        "UnderivedDataset": {"test_options_derive", "test_makes_a_problem"},
        "StumblingDataset": {"test_missing_files_are_named"},
        "FloatDataset": {"test_images_and_labels", "test_makes_a_problem"},
        "TwinsDataset": {"test_classes", "test_makes_a_problem"},
        "ChangingDataset": {"test_loads_the_same"},
        "StrangeDataset": {"test_traits"},
        "MisleadingDataset": {"test_classes"},
        "BrokenPixelsDataset": {"test_makes_a_problem"},
    },
    "report": {
        "SuffixReport": {"test_suffix"},
        "SilentReport": {"test_renders", "test_names_are_data"},
        "ChangingReport": {"test_renders_the_same"},
        "MarkupReport": {"test_names_are_data"},
        "HungryReport": {"test_no_results"},
    },
    "executor": {
        "YesExecutor": {"test_slots"},
        "FlatExecutor": {"test_exit_statuses"},
        "HastyExecutor": {
            "test_exit_statuses",
            "test_ends_when_the_command_has",
            "test_log",
            "test_an_order_can_be_given_again",
            "test_stops",
            "test_stops_at_once",
        },  # fmt: skip,
        "EmptyingExecutor": {"test_log"},
        "LostExecutor": {"test_where"},
        "OnceExecutor": {"test_an_order_can_be_given_again"},
        "HardExecutor": {"test_stops"},
        "SoftExecutor": {"test_stops_at_once"},
        "EndingExecutor": {"test_detached_work_goes_on"},
    },
    "tracker": {
        "FiniteTracker": {"test_follows_a_distillation", "test_follows_cells_side_by_side"},
        "SingleTracker": {"test_follows_cells_side_by_side"},
        "HastyTracker": {"test_takes_any_end"},
    },
    "metric": {
        "NamelessMetric": {
            *("test_numbers_by_part", "test_same_seed_same_numbers", "test_images_are_left_alone"),
            *("test_shapes", "test_lost_students"),
        },
        "CountingMetric": {"test_numbers_by_part"},
        "GlobalMetric": {"test_same_seed_same_numbers"},
        "TrainingMetric": {"test_the_student_is_left_alone"},
        "InPlaceMetric": {"test_images_are_left_alone"},
        "ColourMetric": {"test_shapes"},
        "StrictMetric": {"test_lost_students"},
        "NegativeMetric": {"test_work_is_a_number"},
    },
}
NEVER_DONE = {"SoftExecutor", "EndingExecutor"}
"""What they break is seen by waiting in vain."""
BREAKERS = [(kind, name, checks) for kind, names in CAUGHT.items() for name, checks in names.items()]


@pytest.fixture
def outcomes_of(monkeypatch, tmp_path):
    """The names of the checks of a kind's contract, by how they end, for a class of `broken`."""
    monkeypatch.setenv("DDBENCH_DATA", str(tmp_path))
    (tmp_path / "something").touch()

    def outcomes_of(kind, name):
        if name in NEVER_DONE:
            monkeypatch.setattr(ExecutorContract, "patience", 4.0)
        entry = Entry(kind, "toy", f"broken:{name}", "a toy", "toys", "1")
        monkeypatch.setattr(plugins().registry, "entries", [*plugins().registry.entries, entry])
        contract = CONTRACTS[kind]()
        contract.name = "toy[share=0.5]" if name == "OneWayPool" else "toy"
        named = {
            inspect.getdoc(getattr(contract, check)).splitlines()[0].rstrip("."): check
            for check in dir(contract)
            if check.startswith("test_")
        }
        return {named[outcome.check]: outcome for outcome in contract.outcomes()}

    yield outcomes_of
    for outcome in broken.GoodExecutor.detached:
        outcome.process.wait()


def failed(outcomes):
    return {check for check, outcome in outcomes.items() if outcome.status == "FAILED"}


@pytest.mark.parametrize(("kind", "name", "checks"), BREAKERS, ids=[name for _, name, _ in BREAKERS])
def test_who_breaks_a_promise_is_caught(outcomes_of, kind, name, checks):
    outcomes = outcomes_of(kind, name)
    assert failed(outcomes) == checks
    for check in checks:
        assert outcomes[check].detail
        assert "Traceback" in outcomes[check].trace


@pytest.mark.parametrize("kind", CONTRACTS)
def test_who_breaks_none_is_not(outcomes_of, kind):
    outcomes = outcomes_of(kind, f"Good{kind.title()}")
    assert not failed(outcomes)
    assert sum(outcome.status == "ok" for outcome in outcomes.values()) >= 6


def test_every_check_catches_somebody():
    """No check that cannot fail: each is failed by a component above."""
    shared = {
        "test_version",
        "test_options_are_described",
        "test_options_are_read_back",
        "test_odd_options_are_refused",
    }
    for kind, contract in CONTRACTS.items():
        checks = {name for name in dir(contract) if name.startswith("test_")} - (shared if kind != "pool" else set())
        caught = set().union(*CAUGHT[kind].values())
        assert checks - caught <= {"test_distillations_are_independent"}, kind


def test_where_there_are_no_files_the_images_are_not_checked(outcomes_of):
    outcomes = outcomes_of("dataset", "RefusingDataset")
    assert not failed(outcomes)
    assert {check for check, outcome in outcomes.items() if outcome.status == "skipped"} == {
        "test_images_and_labels", "test_classes", "test_loads_the_same", "test_makes_a_problem",
    }  # fmt: skip
    assert outcomes["test_classes"].detail == "not here"


def test_torch_is_left_as_it_was(outcomes_of):
    before = torch.get_rng_state()
    outcomes_of("method", "GoodMethod")
    outcomes_of("evaluator", "GoodEvaluator")
    assert torch.equal(before, torch.get_rng_state())
