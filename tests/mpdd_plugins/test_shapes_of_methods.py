"""Methods of parametrised and ordered sets on other shapes, numbers of classes and of images, two iterations each."""

import dataclasses

import pytest
import torch
from toys import toy_problem, toy_trajectory

EXPERTS = "experts=1,train_epochs=2,steps=2,expert_epochs=1,max_start_epoch=2,batch=8,lr_img=0.1"
METHODS = {
    "cafe": "cafe[batch_real=2,batch_query=2,most_updates=1,most_epochs=1]",
    "ncfm": "ncfm[batch_real=2,frequencies=4,pairs=1,train_epochs=1]",
    "haba": f"haba[{EXPERTS},as=hallucinators[count=2]]",
    "seqmatch-mtt": f"seqmatch-mtt[{EXPERTS},stage=1,prior_epochs=1]",
    "seqmatch-idc": "seqmatch-idc[inner=1,batch_real=2,n_data=4,stage=1,prior_epochs=1,batch_syn=4,as=unit-pixels]",
    "codes": "dm[batch_real=2,lr_img=0.01,as=latent-codes[codes=2]]",
    "hallucinators": "dm[batch_real=2,lr_img=0.01,as=hallucinators[count=2]]",
}
SIZES = {
    "many images": {"shape": (1, 16, 16), "classes": 2, "ipc": 50},
    "colour, not square": {"shape": (3, 12, 20), "classes": 3, "ipc": 10},
    "100 classes": {"shape": (1, 16, 16), "classes": 100, "ipc": 1},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", METHODS)
def test_two_iterations(method, size):
    shape, classes, ipc = SIZES[size].values()
    names = tuple(f"class {label}" for label in range(classes))
    problem = toy_problem(shape=shape, train=max(2, ipc), test=1, classes=classes)
    problem = dataclasses.replace(problem, classes=names)
    running = toy_trajectory(METHODS[method], problem=problem, ipc=ipc)
    begin, distilled = running.advance(0).images.clone(), running.advance(2)
    assert len(distilled.images) == classes * ipc
    assert running.history.diverged_at is None
    assert not torch.equal(begin, distilled.images)
    images, labels = distilled.training_data()
    assert tuple(images.shape[1:]) == shape
    assert bool(images.isfinite().all())
    assert torch.bincount(labels, minlength=classes).tolist() == [len(images) // classes] * classes
