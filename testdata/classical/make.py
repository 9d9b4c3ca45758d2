"""Makes the cases beside this file. Needs scikit-learn, skl2onnx, lightgbm and onnxmltools, which the tests do without.

Each case is what a converter wrote for a fitted model, 40 rows, and what the model's own library predicts for them.
"""
import json
import pathlib
import shutil
import warnings

import lightgbm
import numpy as np
from onnx import numpy_helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType as LightgbmFloats
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC, SVR

HERE = pathlib.Path(__file__).parent
warnings.simplefilter("ignore")


def write(name, model, inputs, outputs):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    data = folder / "test_data_set_0"
    data.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "data.json").write_text(json.dumps({"rtol": 1e-4, "atol": 1e-5}) + "\n")
    for kind, arrays in (("input", inputs), ("output", outputs)):
        for k, array in enumerate(arrays):
            (data / f"{kind}_{k}.pb").write_bytes(numpy_helper.from_array(array, f"{kind}_{k}").SerializeToString())


def predictions(model, x):
    labels = model.predict(x)
    labels = labels.astype(object) if labels.dtype.kind in "OU" else labels.astype(np.int64)
    return [labels, model.predict_proba(x).astype(np.float32)]


def classifier(name, model, x, y, types=None):
    model.fit(x, y)
    onnx_model = to_onnx(model, x[:1], initial_types=types, options={id(model): {"zipmap": False}}, target_opset={"": 17, "ai.onnx.ml": 3})
    rows = x[::max(1, len(x) // 40)][:40]
    inputs = [rows] if types is None else [rows[:, [0]].astype(object), rows[:, 1:].astype(np.float32)]
    write(name, onnx_model, inputs, predictions(model, rows))


def regressor(name, model, x, y):
    model.fit(x, y)
    rows = x[::max(1, len(x) // 40)][:40]
    write(name, to_onnx(model, x[:1], target_opset={"": 17, "ai.onnx.ml": 3}), [rows], [model.predict(rows).astype(np.float32).reshape(-1, 1)])


iris, cancer, diabetes = load_iris(), load_breast_cancer(), load_diabetes()
x3, x2, xr = (d.data.astype(np.float32) for d in (iris, cancer, diabetes))
names = np.array(iris.target_names)[iris.target]
classifier("forest_of_three_classes", RandomForestClassifier(7, max_depth=4, random_state=0), x3, names)
classifier("forest_of_two_classes", RandomForestClassifier(7, max_depth=4, random_state=0), x2, cancer.target)
classifier("boosted_of_two_classes", GradientBoostingClassifier(n_estimators=10, random_state=0), x2, cancer.target)
holes = x3.copy()
holes[np.random.default_rng(0).random(holes.shape) < 0.1] = np.nan
classifier("imputed_scaled_logistic", make_pipeline(SimpleImputer(), StandardScaler(), Normalizer(), LogisticRegression()), holes, names)
classifier("support_vectors", make_pipeline(StandardScaler(), SVC(probability=True, random_state=0)), x3, iris.target)
rng = np.random.default_rng(1)
mixed = np.empty((200, 3), object)
mixed[:, 0] = rng.choice(["red", "green", "blue"], 200)
mixed[:, 1:] = np.round(rng.standard_normal((200, 2)), 2).astype(np.float32)
columns = make_pipeline(ColumnTransformer([("word", OneHotEncoder(handle_unknown="ignore"), [0]), ("number", StandardScaler(), [1, 2])]), LogisticRegression())
classifier("words_and_numbers", columns, mixed, (mixed[:, 0] == "red") ^ (mixed[:, 1].astype(float) > 0),
           [("word", StringTensorType([None, 1])), ("number", FloatTensorType([None, 2]))])
regressor("forest_regressor", RandomForestRegressor(5, max_depth=5, random_state=0), xr, diabetes.target)
regressor("support_vector_regressor", make_pipeline(StandardScaler(), SVR(C=10)), xr[:100], diabetes.target[:100])
for name, x, y in (("lightgbm_of_three_classes", x3, iris.target), ("lightgbm_of_two_classes", x2, cancer.target)):
    model = lightgbm.LGBMClassifier(n_estimators=5, num_leaves=8, verbose=-1, random_state=0).fit(x, y)
    rows = x[::len(x) // 40][:40]
    onnx_model = convert_lightgbm(model, initial_types=[("x", LightgbmFloats([None, x.shape[1]]))], zipmap=False, target_opset=15)
    write(name, onnx_model, [rows], predictions(model, rows))
