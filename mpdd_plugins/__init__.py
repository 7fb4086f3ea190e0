"""The built-in components, which are registered like those of any other plugin."""

from pathlib import Path

from harness import Register, hookimpl


@hookimpl
def register_methods(register: Register) -> None:
    """Register the distillation methods."""
    register("dc", "mpdd_plugins.methods.dc:DC", "gradient matching (Zhao, Mopuri, Bilen, ICLR 2021)")
    register("dsa", "mpdd_plugins.methods.dsa:DSA", "gradient matching under siamese augmentation (ICML 2021)")
    register("dcc", "mpdd_plugins.methods.dcc:DCC", "gradient matching of all classes at once (Lee et al., ICML 2022)")
    register("dsac", "mpdd_plugins.methods.dcc:DSAC", "dcc under siamese augmentation (Lee et al., ICML 2022)")
    register("idc", "mpdd_plugins.methods.idc:IDC", "gradient matching of packed images (Kim et al., ICML 2022)")
    register("mtt", "mpdd_plugins.methods.mtt:MTT", "matching training trajectories (CVPR 2022), and TESLA")
    register("haba", "mpdd_plugins.methods.haba:HaBa", "mtt of bases and hallucinators (Liu et al., NeurIPS 2022)")
    seqmatch = "mpdd_plugins.methods.seqmatch"
    register("seqmatch-mtt", f"{seqmatch}:SeqMTT", "mtt, one subset after the other (Du et al., NeurIPS 2023)")
    register("seqmatch-idc", f"{seqmatch}:SeqIDC", "idc, one subset after the other (Du et al., NeurIPS 2023)")
    register("dm", "mpdd_plugins.methods.dm:DM", "distribution matching (Zhao and Bilen, WACV 2023)")
    register("cafe", "mpdd_plugins.methods.cafe:CAFE", "matching features of all layers (Wang et al., CVPR 2022)")
    register("ncfm", "mpdd_plugins.methods.ncfm:NCFM", "matching characteristic functions (Wang et al., CVPR 2025)")
    register("frepo", "mpdd_plugins.methods.frepo:FRePo", "regression on features of a pool of networks (NeurIPS 2022)")
    register("kip", "mpdd_plugins.methods.kip:KIP", "regression with kernels of infinitely wide networks (ICLR 2021)")
    register("dd", "mpdd_plugins.methods.dd:DD", "images and step sizes of a few steps of gradient descent (2018)")
    decoupled = "mpdd_plugins.methods.decoupled"
    register("rded", f"{decoupled}.rded:RDED", "crops of real images that a teacher knows best (Sun et al., CVPR 2024)")
    register("sre2l", f"{decoupled}.sre2l:SRe2L", "images with a teacher's batch statistics (Yin et al., NeurIPS 2023)")
    coresets = "mpdd_plugins.methods.coresets"
    register("random", f"{coresets}:Random", "real images drawn uniformly")
    register("herding", f"{coresets}:Herding", "real images whose mean feature is the class's (Welling, ICML 2009)")
    register("k-center", f"{coresets}:KCenter", "real images that cover the class (Sener, Savarese, ICLR 2018)")
    register("whole", f"{coresets}:Whole", "all training images: the upper bound")


@hookimpl
def register_pools(register: Register) -> None:
    """Register the pools: policies from which architecture each network is drawn."""
    pools = "mpdd_plugins.pools"
    register("single", f"{pools}.single:Single", "one architecture, always")
    register("total-random", f"{pools}.total_random:TotalRandom", "several architectures with equal probability")
    register("main-model", f"{pools}.main_model:MainModel", "a main architecture, and various others now and then")
    register("main-similar", f"{pools}.main_similar:MainSimilar", "a main ConvNet, and similar ConvNets now and then")
    register("deep", f"{pools}.deep:Deep", "a main ConvNet, and networks of 30 layers and more now and then")
    register("adaptive", f"{pools}.adaptive:Adaptive", "main-similar, with a probability that is found on the way")
    register("pair", f"{pools}.pair:PairPool", "several architectures at each step, whose gradients are averaged")
    register("early-stage", f"{pools}.early_stage:EarlyStage", "networks trained for a few epochs, perturbed (Acc-DD)")
    register("mix", f"{pools}.mix:Mix", "any architectures with any weights")


@hookimpl
def register_parametrisations(register: Register) -> None:
    """Register the parametrisations: what a set stores, and how training images are decoded from it."""
    ways = "mpdd_plugins.parametrisations"
    register("pixels", f"{ways}.pixels:Pixels", "plain images as network inputs")
    register("unit-pixels", f"{ways}.unit_pixels:UnitPixels", "plain images in [0, 1], preprocessed inside the graph")
    multi = f"{ways}.multi_formation:MultiFormation"
    register("multi-formation", multi, "several images packed into one (IDC, Kim et al., ICML 2022)")
    register("downsample", f"{ways}.downsample:Downsample", "smaller images, which are enlarged")
    hallucinators = f"{ways}.hallucinators:Hallucinators"
    register("hallucinators", hallucinators, "bases that shared hallucinators decode (HaBa, NeurIPS 2022)")
    codes = f"{ways}.latent_codes:LatentCodes"
    register("latent-codes", codes, "small codes that shared decoders enlarge, like KFS (Lee et al., 2022)")


@hookimpl
def register_evaluators(register: Register) -> None:
    """Register the evaluators: ways to train and score students."""
    register("plain", "mpdd_plugins.evaluators.plain:Plain", "students trained with cross-entropy")
    register("kd", "mpdd_plugins.evaluators.kd:KD", "students taught by a ConvNet trained on the same set")
    stored = "mpdd_plugins.evaluators.soft_labels:SoftLabels"
    register("soft-labels", stored, "students taught by stored labels of a network on real data (FKD, ECCV 2022)")
    droppath = "mpdd_plugins.evaluators.droppath:DropPath"
    register("droppath", droppath, "students whose paths drop, taught by a small network (Zhong and Liu, 2023)")
    register("elf", "mpdd_plugins.evaluators.elf:ELF", "students whose maps learn those of a network on real data")
    register("kernel", "mpdd_plugins.evaluators.kernel:Kernel", "plain, beside the accuracy of a kernel on the set")
    continual = "mpdd_plugins.evaluators.continual:Continual"
    register("continual", continual, "plain as classes arrive in steps, with the set as memory (DM, WACV 2023)")


@hookimpl
def register_metrics(register: Register) -> None:
    """Register the metrics: what a run measures of its students beside the accuracy."""
    metrics = "mpdd_plugins.metrics"
    register("ece", f"{metrics}.ece:ECE", "expected calibration error (Guo et al., ICML 2017)")
    register("class-accuracy", f"{metrics}.class_accuracy:ClassAccuracy", "accuracy on each class, and their mean")
    corrupted = "accuracy on corrupted images (Hendrycks, Dietterich, ICLR 2019)"
    register("corrupted", f"{metrics}.corrupted:Corrupted", corrupted)
    register("fgsm", f"{metrics}.adversarial:FGSM", "accuracy under an attack of one step (ICLR 2015)")
    register("pgd", f"{metrics}.adversarial:PGD", "accuracy under an attack of several steps (Madry et al., ICLR 2018)")
    membership = "advantage of an attack that recognises training images (Yeom et al., 2018)"
    register("membership", f"{metrics}.membership:Membership", membership)


@hookimpl
def published_sets() -> str:
    """Return the file of released sets."""
    return str(Path(__file__).with_name("released_sets.toml"))


@hookimpl
def register_trackers(register: Register) -> None:
    """Register the trackers, each of which needs an extra of ddbench."""
    trackers = "mpdd_plugins.trackers"
    register("tensorboard", f"{trackers}.tensorboard:TensorBoard", "event files for TensorBoard: curves and images")
    register("trackio", f"{trackers}.trackio:Trackio", "runs of Trackio on this machine: curves")
    register("wandb", f"{trackers}.wandb:Wandb", "runs of Weights & Biases, offline by default: curves")
