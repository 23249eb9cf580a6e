"""Copies of corpora whose labels stand in the names of files and folders, or in plain lists."""

from tests.support.presets.copy import Copy, jpeg, lines, png


def make_tuberculosis() -> Copy:
    return Copy(
        {
            "ChinaSet_AllFiles/CXR_png/CHNCXR_0001_0.png": png(),
            "ChinaSet_AllFiles/CXR_png/CHNCXR_0327_1.png": png(),
            "ChinaSet_AllFiles/ClinicalReadings/CHNCXR_0001_0.txt": b"male 45yrs\nnormal\n",
            "MontgomerySet/CXR_png/MCUCXR_0104_1.png": png(),
            "MontgomerySet/ManualMask/leftMask/MCUCXR_0104_1.png": png(),
            "MontgomerySet/ManualMask/rightMask/MCUCXR_0104_1.png": png(),
        },
        {
            "tuberculosis:CHNCXR_0001_0": ("tuberculosis:CHNCXR_0001", None, ()),
            "tuberculosis:CHNCXR_0327_1": ("tuberculosis:CHNCXR_0327", None, ("Tuberculosis",)),
            "tuberculosis:MCUCXR_0104_1": ("tuberculosis:MCUCXR_0104", None, ("Tuberculosis",)),
        },
    )


def make_covidx() -> Copy:
    return Copy(
        {
            "train.txt": lines("MIDRC-RICORD-1C-419639 a.png positive ricord", "379 b.png negative rsna"),
            "test.txt": lines("COVID-1 c.jpg positive cohen"),
            "train/a.png": png(),
            "train/b.png": png(),
            "test/c.jpg": jpeg(),
        },
        {
            "covidx:a": ("covidx:MIDRC-RICORD-1C-419639", "train_val", ("COVID-19",)),
            "covidx:b": ("covidx:379", "train_val", ()),
            "covidx:c": ("covidx:COVID-1", "test", ("COVID-19",)),
        },
    )


def make_covid_qu() -> Copy:
    files, images = {}, {}
    for part, name, finding in (
        ("Train", "COVID-19", "COVID-19"),
        ("Train", "Normal", ""),
        ("Val", "Non-COVID", "Pneumonia"),
        ("Test", "COVID-19", "COVID-19"),
    ):
        stem = f"{part}_{name}"
        files[f"Infection Segmentation Data/{part}/{name}/images/{stem}.png"] = png()
        files[f"Infection Segmentation Data/{part}/{name}/lung masks/{stem}.png"] = png()
        files[f"Infection Segmentation Data/{part}/{name}/infection masks/{stem}.png"] = png()
        image = f"covid-qu:Infection Segmentation Data:{part}:{name}:images:{stem}.png"
        images[image] = (image, "test" if part == "Test" else "train_val", (finding,) if finding else ())
    return Copy(files, images)


def make_kaggle_pneumonia() -> Copy:
    places = {
        "train/NORMAL/IM-0115-0001.jpeg": "IM-0115",
        "train/PNEUMONIA/person1000_bacteria_2931.jpeg": "person1000",
        "val/NORMAL/NORMAL2-IM-1427-0001.jpeg": "IM-1427",
        "test/PNEUMONIA/person1_virus_11.jpeg": "person1",
    }
    return Copy(
        {f"chest_xray/{path}": jpeg() for path in places},
        {
            f"kaggle-pneumonia:chest_xray:{path.replace('/', ':')}": (
                f"kaggle-pneumonia:{patient}",
                "test" if path.startswith("test") else "train_val",
                ("Pneumonia",) if "PNEUMONIA" in path else (),
            )
            for path, patient in places.items()
        },
    )
