"""Measures speed against what people would otherwise run.   python -m s9.bench bench=all data=folder"""

from pathlib import Path

from s9.cli.door import key_values, open_door

OWN = {"bench": "all", "repeats": "5", "images": "10000", "out": "", "page": ""}

USAGE = """python -m s9.bench [bench=all|augment|convolution|step|epoch|startup|growth|contention] [repeats=5]
                   [images=10000] [out=<file>] [key=value ...]

Times s9 against the naive way (float32, NCHW, DataLoader of two workers with albumentations per image), in turns.
Prints a table and writes it as JSON with the machine, the versions and the commit.
The images are those of data= (digits unless given: no download), repeated to what a part needs; images= is the size of
bench=epoch. Other keys are those of s9.train, such as trainer.device=cpu. Leave the machine alone while it runs:
contention, steps on the CPU beside busy programs, starts those itself.
page=<file> measures nothing: writes that page's tables anew from the JSON files beside it.
On two cores: augment 1 minute, convolution 1, step 2, epoch 3, startup 2, growth 6, contention 5."""


def main(arguments: list[str]) -> None:
    own = [a for a in arguments if a.partition("=")[0] in OWN]
    given = key_values(own, OWN, USAGE)

    if given["page"]:
        from s9.benchmarks.page import write_page

        print(f"{given['page']}: tables of {', '.join(write_page(Path(given['page'])))}")
        return
    from s9.benchmarks.run import Asked, run

    overrides = [a for a in arguments if a not in own]
    run(
        Asked(**{key: given[key] for key in ("bench", "repeats", "images", "out")}, overrides=overrides, said=arguments)
    )


if __name__ == "__main__":
    open_door(main, USAGE)
