"""Copies of corpora whose labels were mined from reports."""

import json

from tests.support.presets.copy import Copy, deep_png, jpeg, lines, png

CHEXPERT_LABELS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


def make_mimic() -> Copy:
    names = (
        "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,"
        "Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
    )
    chexpert = lines(
        f"subject_id,study_id,{names}",
        "10000032,50414267,,,,,,,,,1.0,,,,,",
        "10000032,53189527,,1.0,,-1.0,,,,,,0.0,,,,",
        "10000764,57375967,,,1.0,,,,,,,,,-1.0,,",
    )
    metadata = lines(
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime",
        '02aa804e-bde0afdd,10000032,50414267,"CHEST (PA AND LAT)",PA,3056,2544,21800506,213014.531',
        '174413ec-4ec4c1f7,10000032,50414267,"CHEST (PA AND LAT)",LATERAL,3056,2544,21800506,213014.531',
        "2a2277a9-b0ded155,10000032,53189527,,AP,2544,3056,21800626,165500.312",
        "096052b7-d256dc40,10000764,57375967,,AP LLD,2544,3056,21321015,",
        "b79e55c3-735ce5ac,10000764,57375967,,,2544,3056,21321015,",
        "dcfeeac4-1597e318,10000764,99999999,,AP,2544,3056,21321015,",
    )
    split = lines(
        "dicom_id,study_id,subject_id,split",
        *(f"{image},50414267,10000032,train" for image in ("02aa804e-bde0afdd", "174413ec-4ec4c1f7")),
        "2a2277a9-b0ded155,53189527,10000032,train",
        "096052b7-d256dc40,57375967,10000764,test",
        "b79e55c3-735ce5ac,57375967,10000764,test",
        "dcfeeac4-1597e318,99999999,10000764,test",
    )
    folder = "files/p10/p10000032/s50414267"
    return Copy(
        {
            "mimic-cxr-2.0.0-chexpert.csv": chexpert,
            "mimic-cxr-2.0.0-metadata.csv": metadata,
            "mimic-cxr-2.0.0-split.csv": split,
            f"{folder}/02aa804e-bde0afdd.jpg": jpeg(),
            f"{folder}/174413ec-4ec4c1f7.jpg": jpeg(),
            f"{folder}/index.html": b"<html></html>",
            "files/p10/p10000032/s53189527/2a2277a9-b0ded155.jpg": jpeg(),
            "files/p10/p10000764/s57375967/096052b7-d256dc40.jpg": jpeg(),
            "files/p10/p10000764/s57375967/b79e55c3-735ce5ac.jpg": jpeg(),
            "files/p10/p10000764/s99999999/dcfeeac4-1597e318.jpg": jpeg(),
        },
        {
            "mimic:02aa804e-bde0afdd": ("mimic:10000032", "train_val", ()),
            "mimic:174413ec-4ec4c1f7": ("mimic:10000032", "train_val", ()),
            "mimic:2a2277a9-b0ded155": ("mimic:10000032", "train_val", ("Cardiomegaly",)),
            "mimic:b79e55c3-735ce5ac": ("mimic:10000764", "test", ("Consolidation",)),
        },
        ("not_frontal", "image_without_entry", "entry_unparsable", "image_without_entry"),
    )


def make_padchest() -> Copy:
    header = (
        ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,"
        "Projection,MethodProjection,Labels"
    )
    table = lines(
        header,
        "0,20536686640136348236148679891455886468_k6ga29.png,0,20140915,2053668,8406,1930.0,M,POSTEROANTERIOR,PA,"
        "Manual review of DICOM fields,\"['pleural effusion', 'scoliosis', 'hiatal hernia']\"",
        "1,135803415504923515076821959678074435083_fzis7b.png,0,20150914,1358034,8406,1930.0,M,,AP_horizontal,x,"
        "['normal']",
        "2,113855343774216031107737439268243531979_3k951l.png,1,20150121,1138553,8450,1950.0,F,,L,x,['atelectasia']",
        "3,1_costal.png,1,20150121,1,8451,1950.0,F,,COSTAL,x,['normal']",
        "4,2_bad.png,1,20150121,2,8452,1950.0,F,,PA,x,['suboptimal study']",
    )
    return Copy(
        {
            "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv": table,
            "0/20536686640136348236148679891455886468_k6ga29.png": deep_png(),
            "0/135803415504923515076821959678074435083_fzis7b.png": deep_png(),
            "1/113855343774216031107737439268243531979_3k951l.png": deep_png(),
            "1/1_costal.png": deep_png(),
            "1/2_bad.png": deep_png(),
        },
        {
            "padchest:20536686640136348236148679891455886468_k6ga29": ("padchest:8406", None, ("Effusion", "Hernia")),
            "padchest:135803415504923515076821959678074435083_fzis7b": ("padchest:8406", None, ()),
            "padchest:113855343774216031107737439268243531979_3k951l": ("padchest:8450", None, ("Atelectasis",)),
        },
        ("not_frontal", "excluded", "image_without_entry", "image_without_entry"),
    )


def make_openi() -> Copy:
    return Copy(
        {
            "indiana_projections.csv": lines(
                "uid,filename,projection",
                "1,1_IM-0001-4001.dcm.png,Frontal",
                "1,1_IM-0001-3001.dcm.png,Lateral",
                "2,2_IM-0652-1001.dcm.png,Frontal",
                "3,3_IM-1384-1001.dcm.png,Frontal",
            ),
            "indiana_reports.csv": lines(
                "uid,MeSH,Problems,image,indication,comparison,findings,impression",
                '1,normal,normal,Xray Chest PA and Lateral,"Positive, TB",None.,"a\nb",c',
                "2,Cardiomegaly/borderline;x,Cardiomegaly;Pulmonary Artery,PA,,,,",
                "3,No Indexing,No Indexing,PA,,,,",
            ),
            **{
                f"images/images_normalized/{name}": png()
                for name in (
                    "1_IM-0001-4001.dcm.png",
                    "1_IM-0001-3001.dcm.png",
                    "2_IM-0652-1001.dcm.png",
                    "3_IM-1384-1001.dcm.png",
                )
            },
        },
        {
            "openi:1_IM-0001-4001.dcm": ("openi:1", None, ()),
            "openi:1_IM-0001-3001.dcm": ("openi:1", None, ()),
            "openi:2_IM-0652-1001.dcm": ("openi:2", None, ("Cardiomegaly",)),
        },
        ("excluded", "image_without_entry"),
    )


def make_chexpert_plus() -> Copy:
    table = lines(
        "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,patient_report_date_order,report,age,sex,split",
        "train/patient42142/study5/view1_frontal.jpg,x.dcm,Frontal,AP,patient42142,5,"
        '"NARRATIVE:\nA film, of\nthe chest.",68,Male,train',
        'train/patient42142/study5/view2_lateral.jpg,x.dcm,Lateral,,patient42142,5,"A film",68,Male,train',
        'valid/patient64541/study1/view1_frontal.jpg,x.dcm,Frontal,PA,patient64541,1,"None",33,Female,valid',
    )
    names = CHEXPERT_LABELS.split(",")
    paths = (
        "train/patient42142/study5/view1_frontal.jpg",
        "train/patient42142/study5/view2_lateral.jpg",
        "valid/patient64541/study1/view1_frontal.jpg",
    )
    rows = [{"path_to_image": path, **dict.fromkeys(names)} for path in paths]
    rows[0]["Edema"], rows[0]["Pneumonia"], rows[2]["Fracture"] = 1.0, -1.0, 1.0
    return Copy(
        {
            "df_chexpert_plus_240401.csv": table,
            "chexbert_labels/impression_fixed.json": lines(*map(json.dumps, rows)),
            **{f"PNG/{path.replace('.jpg', '.png')}": png() for path in paths},
        },
        {
            "train:patient42142:study5:view1_frontal": ("patient42142", "train_val", ("Edema",)),
            "train:patient42142:study5:view2_lateral": ("patient42142", "train_val", ()),
            "valid:patient64541:study1:view1_frontal": ("patient64541", "test", ("Fracture",)),
        },
    )
