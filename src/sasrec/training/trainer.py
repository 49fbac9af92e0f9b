"""The training loop: update the weights, validate, save checkpoints, and stop at a limit or by early stopping."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sasrec.batches.batches import TrainingBatches
from sasrec.batches.loader import DeviceTrainingBatch, Loader
from sasrec.config.settings import RunConfig
from sasrec.errors import amount
from sasrec.losses.loss import own_loss, squares, training_loss
from sasrec.models import SequenceModel
from sasrec.models.diagnostics import stream_diagnostics
from sasrec.models.own import LossFunction
from sasrec.runtime.device import seed_generators
from sasrec.runtime.log import Bar, RunLog
from sasrec.runtime.ranks import from_main, progress, rank, sum_over_ranks, under_torchrun, world
from sasrec.runtime.signals import InterruptedWorkError, deferred_interrupt, pending, raise_for
from sasrec.training import health
from sasrec.training.compiled import compile_encoder
from sasrec.training.optimizer import build_optimizer, learning_rate, optimizer_tensors, restore_optimizer

_DROPOUT = 2  # stream of random numbers; batches/batches.py uses 0, 1 and 3


@dataclass
class TrainingState:
    """The progress of training. Resuming needs only this state, the weights and the optimizer."""

    epoch: int = 0
    """The number of completed epochs."""
    epoch_step: int = 0
    """The number of updates done so far in the current epoch."""
    epoch_loss: float = 0.0
    """The sum of the batch losses so far in the current epoch."""
    step: int = 0
    """The number of updates since the start of training."""
    seconds: float = 0.0
    """Wall-clock time of training and validation, including the time before each resume."""
    loss: float = 0.0
    """The mean batch loss of the last epoch."""
    validated_step: int = 0
    """The number of updates at the last validation."""
    best_epoch: int = 0
    """The epoch with the best validation score so far, counted from 1; 0 before the first score."""
    best_score: float = 0.0
    """The best validation score so far; higher is better."""
    scaler: dict[str, float] = field(default_factory=dict)
    """The state of the loss scaler (`torch.amp.GradScaler`); empty unless precision is fp16."""


class _Loss(nn.Module):
    """The loss of a batch as a module, because DistributedDataParallel can only wrap a module."""

    def __init__(self, model: SequenceModel, config: RunConfig, own: LossFunction | None) -> None:
        super().__init__()
        self.model, self.config, self._own = model, config, own

    def forward(self, batch: DeviceTrainingBatch, l2_emb: float) -> tuple[Tensor, Tensor]:
        """Return two scalars: the loss without gradient (to log), and the loss plus L2 penalty (to minimise)."""
        kind = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.config.training.precision]
        with torch.autocast(self.model.device.type, kind, enabled=kind is not None):
            if self._own is None:
                loss = training_loss(self.model, batch, self.config.loss)
            else:
                loss = own_loss(self._own, self.model, batch)
        penalty = l2_emb * squares(self.model, self.config.training.l2_emb_tables) if l2_emb > 0 else 0.0
        return loss.detach(), loss + penalty


class Trainer:
    """Trains a model. The caller passes functions to validate and to save, so this class writes no files.

    With several ranks, each rank runs this loop on its share of each batch; all ranks keep equal weights.
    """

    def __init__(
        self,
        model: SequenceModel,
        batches: TrainingBatches,
        config: RunConfig,
        *,
        validate: Callable[[Callable[[str], None]], float | None],
        save: Callable[[TrainingState, float | None, dict[str, Tensor]], None],
        log: RunLog,
        loss_function: LossFunction | None = None,
    ) -> None:
        """Prepare the optimizer and the loader.

        `validate(report)` returns the score to maximise, or None if the split has no validation target; it may
        report its progress in words.
        `save(state, score, optimizer)` writes a checkpoint of the current weights; score is None if the weights
        were not validated. `loss_function` replaces the loss of the settings.
        """
        self.model, self.batches, self.config = model, batches, config
        self.state = TrainingState()
        self._validate, self._save, self._log = validate, save, log
        self._loss_function = loss_function
        self._optimizer = build_optimizer(model, config.training)
        self._scaler = torch.amp.GradScaler(model.device.type, enabled=config.training.precision == "fp16")
        self._epoch_loss = torch.zeros(())
        self._began = self._saved = time.monotonic()
        self._saved_step = 0
        self._saves = 0
        self._positions = 0  # of the last batch, over all processes
        self._loader = Loader(batches, model.device, model.item_embedding.weight.dtype)

    def restore(self, state: TrainingState, optimizer: dict[str, Tensor]) -> None:
        """Continue from the state and optimizer of a checkpoint. The model must already have its weights."""
        self.state, self._saved_step = state, state.step
        self._epoch_loss = torch.tensor(state.epoch_loss, device=self.model.device)
        restore_optimizer(self.model, self._optimizer, optimizer)
        if state.scaler:
            self._scaler.load_state_dict(state.scaler)

    def fit(self) -> str:
        """Train until num_epochs, max_minutes or early stopping ends training; return the reason as text.

        The model keeps its last weights; the best weights are in the checkpoint with the highest score.

        Raises: TrainingError, before the update, if a loss or a gradient is not finite. Remedy: lower lr.
        KeyboardInterrupt after SIGINT, or SystemExit (143 after SIGTERM), as soon as the current step is saved. A
        second signal raises at once without saving, since an update may be incomplete (not under torchrun).
        """
        training, state = self.config.training, self.state
        module = _Loss(self.model, self.config, self._loss_function)

        def trial() -> Any:
            """Compute the loss of one part (micro-batch) of the first batch, without an update of the weights."""
            _, loss = module(self._loader.batch(0, 0, 0, training.accumulate * world()), 0.0)
            return loss

        if training.show_shapes:
            for line in health.shapes(self.model, trial):
                self._log.say(line)
        if training.compile:
            self._log.say("compiling the model; this can take a minute")
            compile_encoder(self.model, trial, self._log.say)
        self._loss_of = DistributedDataParallel(module) if world() > 1 else module
        self._began = time.monotonic() - state.seconds  # max_minutes includes the time before a resume
        self._saved = time.monotonic()
        try:
            with (
                torch.autograd.set_detect_anomaly(training.detect_anomaly),
                # Under torchrun one Ctrl-C arrives twice, from the terminal and from torchrun.
                deferred_interrupt(second_quits=not under_torchrun()),
                self._log.bar("training", self._epochs() * len(self.batches)) as bar,
            ):
                done = sum(map(len, self.batches.plan(state.epoch)[: state.epoch_step]))
                bar(state.epoch * len(self.batches) + done, self._note())
                reason = ""
                while not reason:
                    # A run that was interrupted before a due validation validates first, then trains.
                    if not (self._validation_due() or self._reason_to_stop()):
                        self._train_epoch(bar)
                    if self._validation_due():
                        self._validate_and_save(bar)
                    reason = self._reason_to_stop()
                    # Ranks stop together: a rank that stops alone would leave the others waiting for it.
                    if sum_over_ranks(torch.tensor(float(pending()), device=self.model.device)) > 0:
                        self._stop()
        except (KeyboardInterrupt, SystemExit):
            self._log.event("stopped", reason="interrupted", best_epoch=state.best_epoch, seconds=state.seconds)
            raise
        self._log.event("stopped", reason=reason, best_epoch=state.best_epoch, seconds=state.seconds)
        rest = (
            f" and {state.epoch_step} of {len(self.batches.plan(state.epoch))} steps" if state.epoch_step else ""
        )
        self._log.say(f"training stopped after {amount(state.epoch, 'epoch')}{rest}: {reason}")
        return reason

    def _train_epoch(self, bar: Bar) -> None:
        """Train the rest of the current epoch, or until max_minutes is reached."""
        state = self.state
        began, positions, save_due = time.monotonic(), 0, False
        self.model.train()
        plan = self.batches.plan(state.epoch)
        self._epoch_loss = torch.tensor(state.epoch_loss, device=self.model.device)
        parts = self.config.training.accumulate * world()
        own_parts = range(rank(), parts, world())
        # Closed also when an exception leaves the loop, which would otherwise keep the loader's thread alive.
        with closing(self._loader.rest_of(state.epoch, state.epoch_step, own_parts, parts)) as batches:
            while state.epoch_step < len(plan):
                progress(state.step)
                loss, stop_signal, save_due, time_over = self._update(batches, len(plan))
                self._epoch_loss += loss
                positions += self._positions
                state.epoch_step += 1
                state.step += 1
                bar(len(plan[state.epoch_step - 1]), self._note())
                if stop_signal:
                    self._stop()
                if state.epoch_step < len(plan):  # after the last step, a validation may save anyway
                    if time_over:
                        state.loss, state.seconds = float(self._epoch_loss) / state.epoch_step, self._elapsed()
                        return
                    if save_due:
                        self._save_now()
        state.loss = float(self._epoch_loss) / len(plan)
        state.epoch, state.epoch_step, state.epoch_loss = state.epoch + 1, 0, 0.0
        self._epoch_loss = torch.zeros(())
        state.seconds = self._elapsed()
        speed = {"positions_per_second": round(positions / (time.monotonic() - began))} if positions else {}
        summary = {"epoch": state.epoch, "step": state.step, "loss": state.loss, "seconds": state.seconds}
        self._log.event("epoch", **summary, **speed, **health.peak_memory(self.model.device))
        if save_due and not self._validation_due():
            self._save_now()

    def _update(
        self, batches: Iterator[DeviceTrainingBatch], steps_per_epoch: int
    ) -> tuple[Tensor, bool, bool, bool]:
        """Update the weights once, from the next batch; `batches` yields this rank's parts of it one by one.

        Returns, equal on all ranks: the loss of the whole batch, a scalar; whether a rank has a pending signal;
        whether a save is due (save_minutes); whether the time is over (max_minutes).
        """
        training, state = self.config.training, self.state
        # Seed dropout from (seed, epoch, step, rank), so a resumed run draws the same masks.
        stream = [training.seed, _DROPOUT, state.epoch, state.epoch_step, *([rank()] if rank() else [])]
        seed_generators(
            self.model.device, int(np.random.SeedSequence(stream).generate_state(1, np.uint64)[0]) >> 1
        )
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(training, state.step, steps_per_epoch)
        self._optimizer.zero_grad()
        # One array for the loss and the flags, so the ranks exchange them in one all-reduce.
        shared = torch.zeros(4, device=self.model.device)
        for index in range(training.accumulate):
            batch, last = next(batches), index == training.accumulate - 1
            self._positions = batch.positions
            # Gradients are summed over ranks only with the last part.
            with nullcontext() if last or world() == 1 else self._loss_of.no_sync():  # type: ignore[operator]
                # The penalty counts once per batch: in the first part of rank 0.
                loss, penalised = self._loss_of(batch, training.l2_emb if index == rank() == 0 else 0.0)
                shared[0] += loss
                self._backward(penalised, loss)
        if state.step == 0:
            health.refuse_unused(self.model)
        shared[1] = pending()
        if rank() == 0:  # clocks differ, so only the clock of rank 0 counts
            now = time.monotonic()
            shared[2] = training.save_minutes and now - self._saved > 60 * training.save_minutes
            shared[3] = training.max_minutes and now - self._began > 60 * training.max_minutes
        sum_over_ranks(shared)
        # The norm, its check and clipping need the true gradients, without the scale of fp16.
        self._scaler.unscale_(self._optimizer)
        norm = health.gradient_norm(self.model)
        # The only read of the step: each makes the host wait for a GPU.
        total, *flags, size = torch.cat([shared, norm.reshape(1).to(shared.dtype)]).tolist()
        if not math.isfinite(total) or not (math.isfinite(size) or self._may_overflow()):
            health.refuse(self.model, self._pass_again, self._where(), total)
        if training.diagnose_every and state.step % training.diagnose_every == 0 and rank() == 0:
            streams = stream_diagnostics(self.model, self._loader.batch(state.epoch, state.epoch_step))
            self._log.event("diagnostics", step=state.step, loss=total, gradient_norm=size, **streams)
        if training.clip_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), training.clip_norm, norm)
        self._scaler.step(self._optimizer)  # skips the update if fp16 overflowed
        self._scaler.update()  # lowers the scale after an overflow
        stop, save_due, time_over = (flag > 0 for flag in flags)
        return shared[0], stop, save_due, time_over

    def _backward(self, penalised: Tensor, loss: Tensor) -> None:
        """Add the gradients of `penalised` to the `grad` of each parameter.

        `penalised`: the loss of one part of a batch, with penalty. `loss`: without, for the error message.

        Raises: TrainingError if detect_anomaly finds a NaN. Remedy: lower lr.
        """
        try:
            # DistributedDataParallel averages over ranks, but the losses of parts must be summed.
            self._scaler.scale(penalised * world()).backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if not (self.config.training.detect_anomaly and "returned nan values" in str(error)):
                raise
            health.refuse(self.model, self._pass_again, self._where(), float(loss), str(error))

    def _where(self) -> str:
        """The current place in training, as text for an error message."""
        lr = self._optimizer.param_groups[0]["lr"]
        return f"epoch {self.state.epoch + 1}, step {self.state.step} (lr {lr:g})"

    def _pass_again(self) -> None:
        """Compute the loss of this rank's parts of the current batch again, to find where a NaN first appears."""
        parts = self.config.training.accumulate * world()
        for part in range(rank(), parts, world()):
            batch = self._loader.batch(self.state.epoch, self.state.epoch_step, part, parts)
            _Loss(self.model, self.config, self._loss_function)(batch, 0.0)

    def _may_overflow(self) -> bool:
        """Whether a gradient that is not finite may be an fp16 overflow, which a lower loss scale can avoid."""
        return self._scaler.is_enabled() and self._scaler.get_scale() > 1

    def _validate_and_save(self, bar: Bar) -> None:
        """Validate, update the best score, and save a checkpoint with the score."""
        state = self.state
        try:
            score = self._validate(lambda words: bar(0, f"{self._note()}, {words}"))
        except InterruptedWorkError:
            self._stop()
        state.seconds, state.validated_step = self._elapsed(), state.step
        better = score is not None and (state.best_epoch == 0 or score > state.best_score)
        if score is not None and better:
            state.best_score, state.best_epoch = score, state.epoch + (state.epoch_step > 0)  # counts from 1
        self._save_now(score)
        self._log.event("validation", epoch=state.epoch, step=state.step, score=score, best=better)
        shown = "" if score is None else f"  validation NDCG@10 {score:.4f}{' (best)' if better else ''}"
        epoch = f"a part of epoch {state.epoch + 1}" if state.epoch_step else f"epoch {state.epoch:4d}"
        self._log.say(f"{epoch}  loss {state.loss:.4f}{shown}  {state.seconds:.0f} s")

    def _stop(self) -> NoReturn:
        """Save a checkpoint if the newest one is older than this step; then raise the signal's exception.

        `raise_for` defines the exception. If only another rank received a signal, act as after SIGTERM.
        """
        if self.state.step > self._saved_step:
            self._save_now()
        raise_for(pending() or signal.SIGTERM)

    def _save_now(self, score: float | None = None) -> None:
        """Write a checkpoint on rank 0; the other ranks wait, without a time limit."""
        self.state.epoch_loss, self.state.scaler = float(self._epoch_loss), self._scaler.state_dict()

        def write() -> str:
            # Copy: all ranks compare `seconds` with max_minutes, so rank 0 must not change only its own value.
            state = replace(self.state, seconds=time.monotonic() - self._began)
            self._save(state, score, optimizer_tensors(self.model, self._optimizer))
            return ""

        self._saves += 1
        from_main(f"save/{self._saves}", write)
        self._saved, self._saved_step = time.monotonic(), self.state.step

    def _elapsed(self) -> float:
        """Seconds of training by the clock of rank 0, so that all ranks agree whether max_minutes is reached."""
        mine = time.monotonic() - self._began if rank() == 0 else 0.0
        return float(sum_over_ranks(torch.tensor(mine, dtype=torch.float64)))

    def _validation_due(self) -> bool:
        """Whether to validate now: every eval_every epochs, and when num_epochs or max_minutes is reached.

        A step is validated at most once.
        """
        state = self.state
        at_end = state.epoch_step == 0 and state.epoch % self.config.training.eval_every == 0
        return state.step > state.validated_step and (at_end or bool(self._limit_reached()))

    def _reason_to_stop(self) -> str:
        """Why training must stop, as text, or "" to continue."""
        return self._limit_reached() or self._out_of_patience()

    def _limit_reached(self) -> str:
        """Whether the last epoch or max_minutes is reached: the reason as text, or ""."""
        training, state, epochs = self.config.training, self.state, self._epochs()
        # studies/verdict.py recognises these reasons by their ends.
        if state.epoch > epochs:  # resumed with a lower limit
            return f"num_epochs is {epochs}, with {amount(state.epoch, 'epoch')} done"
        if state.epoch == epochs:
            return f"all {epochs:,} epochs done" if epochs > 1 else "the only epoch done"
        if training.max_minutes and state.seconds >= training.max_minutes * 60:
            # studies/reproduce.py recognises this reason by its text, also in the logs of older runs.
            return f"{training.max_minutes:g} minutes are over"
        return ""

    def _epochs(self) -> int:
        """The number of epochs to train; a cosine schedule may be planned for more."""
        training = self.config.training
        return min(training.num_epochs, training.stop_epoch or training.num_epochs)

    def _out_of_patience(self) -> str:
        """Early stopping: the reason as text, or "" while the best validation is recent enough."""
        training, stale = self.config.training, self.state.epoch - self.state.best_epoch
        # Wait for the validation of the current step: it may bring a better score.
        validated = self.state.best_epoch and self.state.validated_step == self.state.step
        if validated and 0 < training.patience * training.eval_every <= stale:
            return f"early stopping, since validation did not improve for {amount(stale, 'epoch')}"
        return ""

    def _note(self) -> str:
        """The text beside the progress bar."""
        best = "" if self.state.best_epoch == 0 else f", best NDCG@10 {self.state.best_score:.4f}"
        return f"epoch {self.state.epoch + 1}{best}"
