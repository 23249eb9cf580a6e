"""Copies of corpora that readers labelled or boxed."""

import numpy as np

from tests.support.presets.copy import SEEDS, Copy, dcm, lines, png, square_film


def make_vindr() -> Copy:
    train = lines(
        "image_id,rad_id,class_name,x_min,y_min,x_max,y_max",
        "aaa1,R1,Cardiomegaly,10,20,50,60",
        "aaa1,R2,Cardiomegaly,11,21,51,61",
        "aaa1,R3,Pleural effusion,1,2,9,8",
        "aaa2,R1,No finding,,,,",
        "aaa2,R2,No finding,,,,",
        "aaa2,R3,No finding,,,,",
    )
    test = lines("image_id,class_name,x_min,y_min,x_max,y_max", "bbb1,Pneumothorax,5,6,15,26", "bbb2,No finding,,,,")
    names = {"train": ("aaa1", "aaa2"), "test": ("bbb1", "bbb2")}
    return Copy(
        {
            "annotations/annotations_train.csv": train,
            "annotations/annotations_test.csv": test,
            **{f"{part}/{name}.dicom": dcm() for part, of_part in names.items() for name in of_part},
        },
        {
            "vindr:aaa1": ("vindr:aaa1", "train_val", ("Cardiomegaly",)),
            "vindr:aaa2": ("vindr:aaa2", "train_val", ()),
            "vindr:bbb1": ("vindr:bbb1", "test", ("Pneumothorax",)),
            "vindr:bbb2": ("vindr:bbb2", "test", ()),
        },
        boxes={"Cardiomegaly": (11.0, 21.0, 40.0, 40.0), "Pneumothorax": (5.0, 6.0, 10.0, 20.0)},
    )


def make_vinbigdata() -> Copy:
    table = lines(
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max",
        "ccc1,Nodule/Mass,8,R8,1,2,11,22",
        "ccc1,Nodule/Mass,8,R9,1,2,11,22",
        "ccc1,No finding,14,R10,,,,",
        "ccc2,No finding,14,R8,,,,",
    )
    return Copy(
        {"train.csv": table, "train/ccc1.dicom": dcm(), "train/ccc2.dicom": dcm()},
        {
            "vinbigdata:ccc1": ("vinbigdata:ccc1", None, ("Nodule_Mass",)),
            "vinbigdata:ccc2": ("vinbigdata:ccc2", None, ()),
        },
        boxes={"Nodule_Mass": (1.0, 2.0, 10.0, 20.0)},
    )


def make_rsna() -> Copy:
    table = lines(
        "patientId,x,y,width,height,Target",
        "0004cfab,,,,,0",
        "00436515,5.0,6.0,20.0,30.0,1",
        "00436515,35.0,6.0,21.0,31.0,1",
    )
    return Copy(
        {
            "stage_2_train_labels.csv": table,
            "stage_2_train_images/0004cfab.dcm": dcm(),
            "stage_2_train_images/00436515.dcm": dcm(),
            "stage_2_test_images/0100515c.dcm": dcm(),
        },
        {"rsna:0004cfab": ("rsna:0004cfab", None, ()), "rsna:00436515": ("rsna:00436515", None, ("Lung_Opacity",))},
        boxes={"Lung_Opacity": (35.0, 6.0, 21.0, 31.0)},
    )


def make_siim() -> Copy:
    # On 1024 x 1024 pixels: rows 4 to 13 of column 2, rows 4 to 13 of column 3.
    table = lines("ImageId, EncodedPixels", "1.2.276.1,-1", f"1.2.276.2,{2 * 1024 + 4} 10 {1024 - 10} 10")
    square = np.random.default_rng(next(SEEDS)).integers(0, 256, (1024, 1024), np.uint8)
    return Copy(
        {
            "train-rle.csv": table,
            "dicom-images-train/1.2.276.11/1.2.276.12/1.2.276.1.dcm": dcm(PatientID="s1"),
            "dicom-images-train/1.2.276.21/1.2.276.22/1.2.276.2.dcm": square_film(square, "s2"),
        },
        {
            "siim:1.2.276.1": ("siim:s1", None, ()),
            "siim:1.2.276.2": ("siim:s2", None, ("Pneumothorax",)),
        },
        boxes={"Pneumothorax": (2.0, 4.0, 2.0, 10.0)},
    )


def make_nih_experts() -> Copy:
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],Fracture,Pneumothorax,Airspace opacity,"
        "Nodule or mass,Set Id"
    )
    return Copy(
        {
            "google2019_nih-chest-xray-labels.csv": lines(
                header,
                "00000013_008.png,No Finding,8,13,60,M,AP,3056,2544,0.139,0.139,NO,NO,YES,NO,test",
                "00000014_000.png,No Finding,0,14,60,M,AP,3056,2544,0.139,0.139,YES,NO,NO,YES,validation",
            ),
            "images/00000013_008.png": png(),
            "images/00000014_000.png": png(),
        },
        {
            "00000013_008": ("00000013", "test", ("Lung_Opacity",)),
            "00000014_000": ("00000014", "train_val", ("Fracture", "Nodule_or_Mass")),
        },
    )
