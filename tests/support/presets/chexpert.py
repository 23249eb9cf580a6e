"""Copies of further label files of CheXpert."""

from tests.support.presets.copy import Copy, jpeg, lines
from tests.support.presets.reports import CHEXPERT_LABELS


def make_chexpert_visual() -> Copy:
    header = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{CHEXPERT_LABELS}"
    root = "CheXpert-v1.0-small"
    return Copy(
        {
            "train_visualCheXbert.csv": lines(
                header,
                f"{root}/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,0.0,0.0,1.0{',0.0' * 11}",
                f"{root}/train/patient00002/study2/view1_lateral.jpg,Female,87,Lateral,,1.0{',0.0' * 13}",
            ),
            "valid.csv": lines(
                header, f"{root}/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,1.0{',0.0' * 12}"
            ),
            "train/patient00001/study1/view1_frontal.jpg": jpeg(),
            "train/patient00002/study2/view1_lateral.jpg": jpeg(),
            "valid/patient64541/study1/view1_frontal.jpg": jpeg(),
        },
        {
            "patient00001:study1:view1_frontal": ("patient00001", "train_val", ("Cardiomegaly",)),
            "patient00002:study2:view1_lateral": ("patient00002", "train_val", ()),
            "patient64541:study1:view1_frontal": ("patient64541", "test", ("Enlarged_Cardiomediastinum",)),
        },
    )


def make_chexpert_test() -> Copy:
    table = lines(f"Path,{CHEXPERT_LABELS}", f"test/patient64741/study1/view1_frontal.jpg,0.0,0.0,1.0{',0.0' * 11}")
    return Copy(
        {"groundtruth.csv": table, "test/patient64741/study1/view1_frontal.jpg": jpeg()},
        {"patient64741:study1:view1_frontal": ("patient64741", "test", ("Cardiomegaly",))},
    )
