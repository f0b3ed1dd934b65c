"""Writes a trained network as a file that needs no s9.   python -m s9.export run=frontier to=onnx"""

from functools import partial
from pathlib import Path

from s9.cli.door import key_values, open_door, refuse_unknown
from s9.system.errors import UserError

USAGE = """python -m s9.export run=<shipped name|folder of a run|file of weights> to=onnx|torch_export [file=<out>]
                    [preprocessing=false|true] [int8=false|true] [check=1000] [measure=false|true]
                    [weights=final|best] [data=folder|digits|cifar10] [data.root=<folder>] [data.<key>=<value> ...]

Writes <name>.onnx or <name>.pt2 (torch.export), for any number of images: `images` in, `logits` out, in float32.
preprocessing=false: images are float32 (B, 3, H, W), (RGB / 255 - mean) / std
preprocessing=true:  images are uint8 (B, 3, H, W), RGB of the network's size; scaling, mean and std are in the file
Logits become probabilities by a softmax, which is in neither. Classes, mean, std, image size, resize (how images that
are no squares were made such) and the run's scores are in the file's metadata.
check=1000    that many test images give the same top 1 as in torch, and logits within 1e-4; else no file is written and
              the exit code is 1. check=0: no check. Where the run's images cannot be read, made-up images are taken
int8=true     to=onnx: a second file, <name>_int8.onnx, calibrated on images of train; both accuracies are said
measure=true  also a table of sizes and of images a second on this CPU
data=, data.root=   other images than the run's own for the check, the calibration and the accuracy

A picture, classified without s9, after: run=frontier to=onnx preprocessing=true
  import json, numpy as np, onnxruntime
  from PIL import Image, ImageOps
  session = onnxruntime.InferenceSession("frontier.onnx")
  about = session.get_modelmeta().custom_metadata_map
  side = int(about["image_size"])
  upright = ImageOps.exif_transpose(Image.open("cat.jpg")).convert("RGB")
  pixels = np.asarray(ImageOps.fit(upright, (side, side)))  # resize=crop
  logits = session.run(["logits"], {"images": pixels.transpose(2, 0, 1)[None]})[0][0]
  print(json.loads(about["class_names"])[logits.argmax()])"""

ALLOWED = {"to": ("onnx", "torch_export"), "weights": ("final", "best")}
ALLOWED |= dict.fromkeys(("preprocessing", "int8", "measure"), ("false", "true"))
KEYS = {key: values[0] for key, values in ALLOWED.items()} | {"run": None, "to": None, "file": "", "check": "1000"}
OF_DATA = ("data=", "data.")  # arguments that choose the images


def main(arguments: list[str]) -> int:
    of_data = [a for a in arguments if a.lstrip("+~").startswith(OF_DATA)]
    given = key_values([a for a in arguments if a not in of_data], KEYS, USAGE)
    refuse_unknown(given, ALLOWED)
    if not given["check"].isdecimal():
        raise UserError(f"check={given['check']}: must be a number of images; 0: no check")
    preprocessing, int8, measure = (given[key] == "true" for key in ("preprocessing", "int8", "measure"))
    if of_data and given["check"] == "0" and not int8:
        raise UserError(f"{of_data[0]}: has no effect, since check=0 and int8=false look at no image")
    if int8 and given["to"] != "onnx":
        raise UserError(f"int8=true: for to=onnx alone, not to={given['to']}")

    from s9.cli.evaluate import chosen_data
    from s9.inference.export import Asked, Export

    asked = Asked(
        run=given["run"],
        to=given["to"],
        file=Path(given["file"]) if given["file"] else None,
        weights=given["weights"],
        check=int(given["check"]),
        data=partial(chosen_data, overrides=of_data) if of_data else None,
        preprocessing=preprocessing,
        int8=int8,
        measure=measure,
    )
    return 0 if Export(asked, partial(print, flush=True)).run() else 1


if __name__ == "__main__":
    open_door(main, USAGE)
