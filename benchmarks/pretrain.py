"""A pre-training step at base size: ours and a plain one (`plain_mvptr.py`) with the same weights and losses, in one run.

    OMP_NUM_THREADS=1 python benchmarks/pretrain.py --quick
    OMP_NUM_THREADS=1 python benchmarks/pretrain.py --json pretrain.json

Forward and backward, dropout 0.1, on one thread; 16 pairs of a caption of 12-19 of 40 places (1-3 phrases among them), 20 tag
places of which 2 are masked, 50 regions, 2 masked words. First both are given weights without dropout, and their losses
compared. What a CPU can do is measured beside them, by products of large matrices: a step cannot take less than its
floating-point operations at that rate. Then what MCR, VSC and WPG cost beyond MLM and ITM with as many masks as in the paper,
what share of a step the Hungarian method takes, and how long a step waits for its batch, which the stream makes of 50-region
samples meanwhile. On a CUDA device: the same in bf16 over batch sizes, with model FLOPs utilisation.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from harness import Row, arguments, best_rates, report
from model_batch import made_batch
from plain_mvptr import PlainMvptr
from synthetic import write_data_set
from torch.utils.flop_counter import FlopCounterMode

from mvptr_model.allocation import keep_freed_memory
from mvptr_model.batch import Batch
from mvptr_model.configuration import ModelConfiguration
from mvptr_model.flops import batch_flops, peak_flops
from mvptr_model.inputs import Collator, InputSettings
from mvptr_model.losses.mcr import assignments, costs
from mvptr_model.masking import IGNORED, MaskingSettings
from mvptr_model.model import Mvptr
from mvptr_model.stream.batches import StreamSpec
from mvptr_model.stream.loader import StreamLoader
from mvptr_model.stream.reader import ShardReader
from mvptr_model.stream.settings import OrderSettings
from mvptr_model.word_pieces import WordPieces

CPU_BATCH = 16
CUDA_BATCHES = (64, 128, 256, 512, 1024)
Job = tuple[Callable[[], object], float]


def new_model(**changes: object) -> Mvptr:
    torch.manual_seed(0)
    return Mvptr(ModelConfiguration.preset("paper", **changes)).train()


def our_step(model: Mvptr, batch: Batch, stage: int) -> None:
    """Forward and backward."""
    model.zero_grad(set_to_none=True)
    model(batch, stage=stage).total.backward()


def plain_step(model: Mvptr, batch: Batch, stage: int) -> None:
    model.zero_grad(set_to_none=True)
    torch.stack(list(PlainMvptr(model).losses(batch, stage=stage).values())).sum().backward()


def check_equal(model: Mvptr, batch: Batch) -> None:
    """Both give the same losses without dropout; raises where not."""
    model.eval()
    with torch.no_grad():
        ours, plain = model(batch, stage=2).losses, PlainMvptr(model).losses(batch, stage=2)
    for name, value in plain.items():
        print(f"{name:6} ours {ours[name].item():.5f}, plain {value.item():.5f}")
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-4)
    model.train()


def product(dtype: torch.dtype) -> Job:
    """A product of the feed-forward blocks' shape, and its floating-point operations."""
    states, weights = torch.ones(2048, 768, dtype=dtype), torch.ones(768, 3072, dtype=dtype)
    return lambda: states @ weights, 2.0 * 2048 * 768 * 3072


def matching(batch: Batch, configuration: ModelConfiguration, device: torch.device) -> Callable[[], object]:
    """Eq. 1 for the tags and phrases of a batch of the host's, from scores at hand on `device`."""
    given = []
    for labels, candidates in (
        (batch.tag_labels, configuration.word_rows),
        (batch.phrase_labels, configuration.phrase_rows),
    ):
        masked = labels != IGNORED
        logits = torch.randn(int(masked.sum()), candidates, device=device)
        given.append((logits, logits.logsumexp(dim=1), labels[masked], masked.sum(dim=1)))
    return lambda: [assignments(costs(*parts).double().cpu().numpy(), parts[-1].numpy()) for parts in given]


def streamed(folder: Path, pairs: int, steps: int) -> Iterator[Batch]:
    """Batches of the stream; word pieces are letters', so that texts are longer than by BERT's."""
    write_data_set(str(folder), pairs * (steps + 1))
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = WordPieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)])
    with ShardReader(str(folder)) as reader:
        phrases = reader.vocabulary()
    collate = Collator(words, phrases, InputSettings(packed=True), MaskingSettings())
    order = OrderSettings(global_batch=pairs, canonical_streams=1)
    yield from islice(StreamLoader(StreamSpec(roots=(str(folder),), order=order, collate=collate)), steps)


def waiting_share(model: Mvptr, pairs: int, steps: int, device: torch.device) -> float:
    """Of the seconds of so many steps, those in which the model waits for a batch; the first batch is not counted."""
    waited = started = 0.0
    with tempfile.TemporaryDirectory() as folder:
        batches = streamed(Path(folder), pairs, steps + 1)
        our_step(model, next(batches), 2)
        started = time.perf_counter()
        for _ in range(steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            our_step(model, batch, 2)
        _synchronize(device)
    return waited / (time.perf_counter() - started)


def flops_of(job: Callable[[], object]) -> float:
    """As torch counts them."""
    with FlopCounterMode(display=False) as counter:
        job()
    return float(counter.get_total_flops())


def on_cpu(rounds: int, file: Path | None) -> None:
    """One thread, CPU seconds."""
    model, batch = new_model(), made_batch(CPU_BATCH, ModelConfiguration())
    packed, half = batch.without_padding(), new_model().bfloat16()
    keep_freed_memory()
    check_equal(model, batch)
    pairs = float(CPU_BATCH)
    jobs: dict[str, Job] = {
        "stage 1: ours": (lambda: our_step(model, packed, 1), pairs),
        "stage 1: plain": (lambda: plain_step(model, batch, 1), pairs),
        "stage 2: ours": (lambda: our_step(model, packed, 2), pairs),
        "stage 2: plain": (lambda: plain_step(model, batch, 2), pairs),
        "stage 2: ours, bf16": (lambda: our_step(half, packed, 2), pairs),
    }
    products = {"fp32": product(torch.float32), "bf16": product(torch.bfloat16)}
    rates = best_rates({**jobs, **products}, rounds=rounds, clock=time.process_time)
    often = made_batch(CPU_BATCH, model.configuration, MaskingSettings()).without_padding()
    beyond = pairs * beyond_mlm_and_itm(often, 3 * rounds)
    match = best_rates(
        {"match": (matching(batch, model.configuration, torch.device("cpu")), pairs)},
        rounds=rounds + 1,
        clock=time.process_time,
    )
    rows = [Row(name=f"product of matrices, {name}", value=rates[name] / 1e9, unit="GFLOP/s") for name in products]
    for stage in (1, 2):
        ours, plain = f"stage {stage}: ours", f"stage {stage}: plain"
        counts = {
            ours: batch_flops(model.configuration, batch, stage=stage),
            plain: flops_of(lambda stage=stage: plain_step(model, batch, stage)),  # type: ignore[misc]
        }
        for name, count in counts.items():
            least = count / pairs / rates["fp32"]
            rows += [
                Row(
                    name=name,
                    value=60 * rates[name],
                    unit="samples a CPU-minute",
                    peer=plain,
                    ratio=rates[name] / rates[plain],
                ),
                Row(name="  its step", value=1e3 / rates[name], unit="CPU-ms a sample"),
                Row(name="  its products", value=count / pairs / 1e9, unit="GFLOP a sample"),
                Row(name="  at the rate above", value=1e3 * least, unit="CPU-ms a sample"),
            ]
    whole, half_rate = rates["stage 2: ours"], rates["stage 2: ours, bf16"]
    rows += [
        Row(name="stage 2: ours, bf16", value=1e3 / half_rate, unit="CPU-ms a sample"),
        Row(
            name="MCR, VSC and WPG beyond MLM and ITM",
            value=100 * beyond / (pairs / whole - beyond),
            unit="% of a step without them",
        ),
        Row(name="matching", value=100 * whole / match["match"], unit="% of a step"),
        Row(
            name="waiting for batches",
            value=100 * waiting_share(model, CPU_BATCH, 2, torch.device("cpu")),
            unit="% of a step",
        ),
    ]
    report(f"{CPU_BATCH} pairs a step, one thread", rows, file)


def beyond_mlm_and_itm(batch: Batch, rounds: int) -> float:
    """CPU seconds a sample that MCR, VSC and WPG take. Stacks of two layers tell: they add as much to any, and the difference of
    two long steps is lost where other work disturbs them."""
    models = [new_model(layers=2, wpg_layer=1, **changes) for changes in ({}, {"losses": ("itm", "mlm")})]
    jobs: dict[str, Job] = {
        str(number): (lambda model=model: our_step(model, batch, 2), float(len(batch)))  # type: ignore[misc]
        for number, model in enumerate(models)
    }
    every, alone = best_rates(jobs, rounds=rounds, clock=time.process_time).values()
    return 1 / every - 1 / alone


def on_cuda(rounds: int, file: Path | None) -> None:
    """bf16, seconds of wall."""
    device = torch.device("cuda")
    model = new_model().to(device, torch.bfloat16)
    few = new_model(losses=("itm", "mlm")).to(device, torch.bfloat16)
    check_equal(new_model().to(device), made_batch(CPU_BATCH, model.configuration).to(device))
    rows = []
    for pairs in CUDA_BATCHES:
        made = made_batch(pairs, model.configuration)
        needed = {stage: batch_flops(model.configuration, made, stage=stage) / pairs for stage in (1, 2)}
        jobs = cuda_jobs(model, few, made, device)
        rates = {name: cuda_rate(job, pairs, rounds) for name, job in jobs.items()}
        for name, rate in rates.items():
            plain = f"{name.partition(':')[0]}: plain"
            ratio = rate / rates[plain] if rates.get(plain) else None
            rows.append(
                Row(name=f"{pairs}, {name}", value=rate, unit="samples/s", peer=plain if ratio else None, ratio=ratio)
            )
        for stage in (1, 2):
            if peak := peak_flops(device):
                used = 100 * needed[stage] * rates[f"stage {stage}: ours"] / peak
                rows.append(Row(name=f"{pairs}, stage {stage}: ours", value=used, unit="% model FLOPs utilisation"))
        whole, alone = rates["stage 2: ours"], rates["stage 2: ours, MLM and ITM alone"]
        if whole and alone:
            rows += [
                Row(name=f"{pairs}, beyond MLM and ITM", value=100 * (alone / whole - 1), unit="% of a step"),
                Row(name=f"{pairs}, matching", value=100 * whole / rates["matching"], unit="% of a step"),
                Row(
                    name=f"{pairs}, waiting for batches",
                    value=100 * waiting_share(model, pairs, 4 * rounds, device),
                    unit="% of a step",
                ),
            ]
    report(f"{torch.cuda.get_device_name(device)}, bf16, by pairs a step", rows, file)


def cuda_jobs(model: Mvptr, few: Mvptr, made: Batch, device: torch.device) -> dict[str, Callable[[], object]]:
    """What is timed, features on the device already; `few` learns from MLM and ITM alone."""
    batch, packed = made.to(device), made.without_padding().placed(device)
    return {
        "stage 1: ours": lambda: our_step(model, packed, 1),
        "stage 1: plain": lambda: plain_step(model, batch, 1),
        "stage 2: ours": lambda: our_step(model, packed, 2),
        "stage 2: plain": lambda: plain_step(model, batch, 2),
        "stage 2: ours, MLM and ITM alone": lambda: our_step(few, packed, 2),
        "matching": matching(made, model.configuration, device),
    }


def cuda_rate(job: Callable[[], object], pairs: int, rounds: int) -> float:
    """Samples a second in the best round of several steps, after two that warm up; 0 where memory is too small."""
    try:
        for _ in range(2):
            job()
        best = 0.0
        for _ in range(rounds):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(5):
                job()
            torch.cuda.synchronize()
            best = max(best, 5 * pairs / (time.perf_counter() - start))
        return best
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return 0.0


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    options = arguments(__doc__).parse_args()
    if torch.cuda.is_available():
        on_cuda(1 if options.quick else 3, options.json)
    else:
        torch.set_num_threads(1)
        on_cpu(1 if options.quick else 3, options.json)


if __name__ == "__main__":
    main()
