"""The components that come with the harness, registered through the same hooks as those of any plugin."""

from harness.plugins.hookspecs import Register, hookimpl


@hookimpl
def register_architectures(register: Register) -> None:
    """Register the networks of the DC code base, deep ones for small images, and those of torchvision and timm."""
    # Targets are texts, so that listing components imports neither torch nor torchvision.
    conv = "harness.architectures"
    register("mlp", f"{conv}.mlp:MLP", "three linear layers of width 128")
    register(
        "convnet", f"{conv}.convnet:ConvNet", "blocks of conv, norm, activation, pool; the field's standard network"
    )
    frepo = f"{conv}.frepo_net:FRePoNet"
    register("frepo-net", frepo, "convolutions of doubling width after batch norm; FRePo's network")
    register("lenet", f"{conv}.lenet:LeNet", "two 5x5 convolutions and three linear layers")
    register("alexnet", f"{conv}.alexnet:AlexNet", "five convolutions, adapted to small images")
    for depth in (11, 13, 16, 19):
        register(f"vgg{depth}", f"{conv}.vgg:VGG{depth}", f"VGG with {depth} layers, instance norm by default")
    for depth in (18, 34, 50):
        register(f"resnet{depth}", f"{conv}.resnet:ResNet{depth}", f"ResNet-{depth} with a 3x3 stem")
    register(
        "resnet-cifar", f"{conv}.deep.resnet_cifar:ResNetCIFAR", "ResNets of 20 to 110 layers, 16 to 64 channels wide"
    )
    register("wrn", f"{conv}.deep.wrn:WRN", "wide residual networks, of any depth and width")
    register(
        "densenet-bc", f"{conv}.deep.densenet_bc:DenseNetBC", "DenseNets with bottlenecks, of 40 layers by default"
    )
    register("vit", f"{conv}.deep.vit:ViT", "a small vision transformer on patches of 4x4; DC-BENCH's")
    register("torchvision", f"{conv}.torchvision:TorchvisionClassifier", "any classifier of torchvision")
    register("timm", f"{conv}.timm:TimmClassifier", "any classifier of timm (pip install 'ddbench[timm]')")


@hookimpl
def register_datasets(register: Register) -> None:
    """Register the embedded digits, torchvision's data sets, and the user's own images."""
    sets = "harness.datasets"
    register("digits", f"{sets}.digits:Digits", "handwritten digits at 16x16, embedded, offline")
    register("cifar10", f"{sets}.torchvision:CIFAR10", "60,000 colour images of 32x32 in 10 classes")
    register("cifar100", f"{sets}.torchvision:CIFAR100", "60,000 colour images of 32x32 in 100 classes")
    register("mnist", f"{sets}.torchvision:MNIST", "70,000 grey digits of 28x28")
    register("fashion-mnist", f"{sets}.torchvision:FashionMNIST", "70,000 grey pieces of clothing of 28x28")
    register("svhn", f"{sets}.torchvision:SVHN", "99,289 colour house numbers of 32x32")
    more = f"{sets}.collections"
    register("tiny-imagenet", f"{more}.tiny_imagenet:TinyImageNet", "110,000 colour images of 64x64 in 200 classes")
    register("imagenet", f"{more}.imagenet:ImageNet", "ImageNet-1k, or ten of its classes: subset=nette, size=128")
    register("cifar10-c", f"{more}.cifar10_c:CIFAR10C", "CIFAR-10 with corrupted test images")
    register("medmnist", f"{more}.medmnist:MedMNIST", "medical images of MedMNIST: name=pathmnist, size=28")
    register("hf", f"{more}.hf:HuggingFace", "a data set of the Hugging Face hub, or a folder of parquet files")
    register("folder", f"{sets}.folder:Folder", "an image folder with train/CLASS/ and test/CLASS/")
    register("arrays", f"{sets}.arrays:Arrays", "an .npz file with train and test images and labels")


@hookimpl
def register_formats(register: Register) -> None:
    """Register the file formats of distilled sets."""
    # Those that can be written come first: messages list them in this order.
    layouts = "harness.types.formats"
    register("safetensors", f"{layouts}.own:Safetensors", "our own: everything that is needed to use the set")
    register("vico", f"{layouts}.vico:Vico", "VICO-UoE's .pt: data, a list of [images, labels]; hard labels only")
    register("npz", f"{layouts}.npz:Npz", "arrays images and labels; classes, step_size if there; keeps everything")
    register("images", f"{layouts}.folder:Images", "a folder CLASS/NAME.png (or .jpg, ...): pixels, rounded to 8 bits")
    register("mtt", f"{layouts}.tensors:MTT", "MTT's images_best.pt with labels_best.pt (and lr_best.pt); only read")
    ranking = "DD-Ranking's images.pt; labels.pt (logits) and lr.pt if there; only read"
    register("ddranking", f"{layouts}.tensors:DDRanking", ranking)
    register("idc", f"{layouts}.idc:IDC", "IDC's data.pt: packed pixels, [images, labels]; only read")


@hookimpl
def register_reports(register: Register) -> None:
    """Register the page, and scores after DD-Ranking."""
    register("page", "harness.report.page.page:Page", "one HTML file: tables, pictures, curves, and how to do it again")
    register(
        "robust-scores",
        "harness.report.dd_ranking:RobustScores",
        "label-robust and augmentation-robust scores after DD-Ranking, accuracies as fractions",
    )


@hookimpl
def register_executors(register: Register) -> None:
    """Register processes of this machine, this process itself, and clusters."""
    where = "harness.executors"
    register("local", f"{where}.local:Local", "a process of this machine for each job, as many at once as it has slots")
    register("inline", f"{where}.inline:Inline", "one job after the other in this process, for debugging")
    register("slurm", f"{where}.slurm:Slurm", "array jobs of a SLURM cluster, started again if they ran out of time")
    register("ray", f"{where}.ray:Ray", "tasks of a Ray cluster, or of one that is started here")
