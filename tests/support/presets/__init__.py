"""Small copies of public corpora in their published form: tables, folders and names, with films of noise."""

from collections.abc import Callable, Mapping

from tests.support.presets.chexpert import make_chexpert_test, make_chexpert_visual
from tests.support.presets.copy import Copy
from tests.support.presets.names import make_covid_qu, make_covidx, make_kaggle_pneumonia, make_tuberculosis
from tests.support.presets.readers import make_nih_experts, make_rsna, make_siim, make_vinbigdata, make_vindr
from tests.support.presets.reports import make_chexpert_plus, make_mimic, make_openi, make_padchest

COPIES: Mapping[str, Callable[[], Copy]] = {
    "mimic": make_mimic,
    "padchest": make_padchest,
    "vindr": make_vindr,
    "vinbigdata": make_vinbigdata,
    "rsna": make_rsna,
    "siim": make_siim,
    "chexpert-plus": make_chexpert_plus,
    "chexpert-visual": make_chexpert_visual,
    "chexpert-test": make_chexpert_test,
    "tuberculosis": make_tuberculosis,
    "covidx": make_covidx,
    "covid-qu": make_covid_qu,
    "kaggle-pneumonia": make_kaggle_pneumonia,
    "nih-experts": make_nih_experts,
    "openi": make_openi,
}
