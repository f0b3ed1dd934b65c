"""Measures speed against what people would otherwise run.   python -m s9.bench bench=all data=folder"""

from pathlib import Path

from s9.cli.door import key_values, open_door
from s9.system.interrupt import Interrupted, Interrupts, leave

OF_PARTS = {"bench": "all", "repeats": "5", "images": "10000", "target": "0.85", "seeds": "0", "out": ""}
OWN = OF_PARTS | {"page": ""}

USAGE = """python -m s9.bench [bench=all|augment|convolution|step|epoch|startup|growth|contention] [repeats=5]
                   [images=10000] [out=<file>] [key=value ...]
python -m s9.bench bench=target [target=0.85] [seeds=0,1,2] [out=<file>] [key=value ...]

Times s9 against the naive way (float32, NCHW, DataLoader of two workers with albumentations per image), in turns.
Prints a table and writes it as JSON with the machine, the versions and the commit.
The images are those of data= (digits unless given: no download), repeated to what a part needs; images= is the size of
bench=epoch. Other keys are those of s9.train, such as trainer.device=cpu. Leave the machine alone while it runs:
contention, steps on the CPU beside busy programs, starts those itself.
page=<file> measures nothing: writes that page's tables anew from the JSON files beside it.
On two cores: augment 1 minute, convolution 1, step 2, epoch 3, startup 2, growth 6, contention 5.

bench=target, which bench=all leaves out, since it takes minutes per seed: trains as s9.train would, to the last epoch,
with experiment=fast unless experiment= or trainer.epochs= is given. Says in which epoch the accuracy on val reaches
target=, and the minutes and operations to there and of the whole training. Minutes count from the first step on, with
and without the scoring of val; the time to compile, with trainer.compile=true, has its own row. Test is never scored.
Ctrl-C keeps what has been measured. A target that is not reached is a row, and no error."""


def main(arguments: list[str]) -> int:
    own = [a for a in arguments if a.partition("=")[0] in OWN]
    given = key_values(own, OWN, USAGE)

    if given["page"]:
        from s9.benchmarks.page import write_page

        print(f"{given['page']}: tables of {', '.join(write_page(Path(given['page'])))}")
        return 0
    from s9.benchmarks.run import Asked, run

    asked = {key: given[key] for key in OF_PARTS}
    interrupts = Interrupts(end=leave)
    try:
        code = run(Asked(**asked, overrides=[a for a in arguments if a not in own], said=arguments), interrupts)
    except Interrupted as stop:
        leave(128 + stop.number)
    if interrupts.received is not None:
        leave(code)
    return code


if __name__ == "__main__":
    open_door(main, USAGE)
