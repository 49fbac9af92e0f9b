"""The training loop: batch -> loss -> step -> maybe validate -> maybe save -> maybe stop."""

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
from sasrec.losses.loss import training_loss
from sasrec.models import SequenceModel
from sasrec.models.diagnostics import stream_diagnostics
from sasrec.runtime.device import seed_generators
from sasrec.runtime.log import Bar, RunLog
from sasrec.runtime.ranks import from_main, progress, rank, sum_over_ranks, under_torchrun, world
from sasrec.runtime.signals import InterruptedWorkError, deferred_interrupt, pending, raise_for
from sasrec.training import health
from sasrec.training.compiled import compile_encoder
from sasrec.training.optimizer import build_optimizer, learning_rate, optimizer_tensors, restore_optimizer

_DROPOUT = 2  # sub-stream of the seed; batches.py has 0 and 1


@dataclass
class TrainingState:
    """The progress of training. Resuming needs this state, the weights and the optimizer, and nothing else."""

    epoch: int = 0
    """Epochs completed."""
    epoch_step: int = 0
    """Updates done in the current epoch."""
    epoch_loss: float = 0.0
    """Sum of the losses of these updates."""
    step: int = 0
    """Updates of the weights since the start."""
    seconds: float = 0.0
    """Wall clock of this and earlier sessions, validations included."""
    loss: float = 0.0
    """Mean loss of the last epoch completed."""
    validated_step: int = 0
    """The step of the last validation."""
    best_epoch: int = 0
    """The epoch of the best validation so far; 0 before the first validation."""
    best_score: float = 0.0
    scaler: dict[str, float] = field(default_factory=dict)
    """State of the gradient scaler (fp16 only)."""


class _Loss(nn.Module):
    """The loss as a module, because DistributedDataParallel wraps modules."""

    def __init__(self, model: SequenceModel, config: RunConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, batch: DeviceTrainingBatch, l2_emb: float) -> tuple[Tensor, Tensor]:
        """The loss, detached, and the loss with the L2 penalty, which training minimises."""
        kind = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.config.training.precision]
        with torch.autocast(self.model.device.type, kind, enabled=kind is not None):
            loss = training_loss(self.model, batch, self.config.loss)
        penalty = l2_emb * self.model.item_embedding.weight.square().sum() if l2_emb > 0 else 0.0
        return loss.detach(), loss + penalty


class Trainer:
    """The training loop. The caller passes validation and saving in, so this layer knows no metrics and no files.

    With several processes, each runs this loop on its share of each batch, and all have the same weights.
    """

    def __init__(
        self,
        model: SequenceModel,
        batches: TrainingBatches,
        config: RunConfig,
        *,
        validate: Callable[[], float | None],
        save: Callable[[TrainingState, float | None, dict[str, Tensor]], None],
        log: RunLog,
    ) -> None:
        """`validate`: returns the validation score, higher is better, or None without validation targets.

        `save(state, score, optimizer)`: writes a checkpoint with the present weights.
        """
        self.model, self.batches, self.config = model, batches, config
        self.state = TrainingState()
        self._validate, self._save, self._log = validate, save, log
        self._optimizer = build_optimizer(model, config.training)
        self._scaler = torch.amp.GradScaler(model.device.type, enabled=config.training.precision == "fp16")
        self._epoch_loss = torch.zeros(())
        self._began = self._saved = time.monotonic()
        self._saved_step = 0
        self._saves = 0
        self._positions = 0  # of the last batch, over all processes
        self._loader = Loader(batches, model.device, model.item_embedding.weight.dtype)

    def restore(self, state: TrainingState, optimizer: dict[str, Tensor]) -> None:
        """Continue from a saved training state and optimizer. The model must have its weights already."""
        self.state, self._saved_step = state, state.step
        self._epoch_loss = torch.tensor(state.epoch_loss, device=self.model.device)
        restore_optimizer(self.model, self._optimizer, optimizer)
        if state.scaler:
            self._scaler.load_state_dict(state.scaler)

    def fit(self) -> str:
        """Train until the epochs, the minutes or the patience run out, and return the reason as text.

        Raises: TrainingError before the update if a loss or a gradient is not finite. On SIGINT or SIGTERM the
        weights are saved after the step, and KeyboardInterrupt or SystemExit(143) is raised. A second signal
        raises at once and saves nothing, because it may have interrupted an update.
        """
        training, state = self.config.training, self.state
        module = _Loss(self.model, self.config)

        def trial() -> Any:
            _, loss = module(self._loader.batch(0, 0, 0, training.accumulate * world()), 0.0)
            return loss

        if training.show_shapes:
            for line in health.shapes(self.model, trial):
                self._log.say(line)
        if training.compile:
            self._log.say("compiling the model: this can take a minute")
            compile_encoder(self.model, trial, self._log.say)
        self._loss_of = DistributedDataParallel(module) if world() > 1 else module
        self._began = time.monotonic() - state.seconds
        self._saved = time.monotonic()
        try:
            with (
                torch.autograd.set_detect_anomaly(training.detect_anomaly),
                # torchrun sends its processes a second copy of the terminal's signal.
                deferred_interrupt(second_quits=not under_torchrun()),
                self._log.bar("training", training.num_epochs * len(self.batches)) as bar,
            ):
                done = sum(map(len, self.batches.plan(state.epoch)[: state.epoch_step]))
                bar(state.epoch * len(self.batches) + done, self._note())
                reason = ""
                while not reason:
                    # A resumed run first does a validation that was interrupted.
                    if not (self._validation_due() or self._reason_to_stop()):
                        self._train_epoch(bar)
                    if self._validation_due():
                        self._validate_and_save()
                    reason = self._reason_to_stop()
                    if sum_over_ranks(torch.tensor(float(pending()), device=self.model.device)) > 0:
                        self._stop()
        except (KeyboardInterrupt, SystemExit):
            self._log.event("stopped", reason="interrupted", best_epoch=state.best_epoch, seconds=state.seconds)
            raise
        self._log.event("stopped", reason=reason, best_epoch=state.best_epoch, seconds=state.seconds)
        part = (
            f" and {state.epoch_step} of {len(self.batches.plan(state.epoch))} steps" if state.epoch_step else ""
        )
        self._log.say(f"stopped after {state.epoch} epochs{part}: {reason}")
        return reason

    def _train_epoch(self, bar: Bar) -> None:
        """Train to the end of the epoch, or until the time is over."""
        state = self.state
        began, positions, due = time.monotonic(), 0, torch.zeros(())
        self.model.train()
        plan = self.batches.plan(state.epoch)
        self._epoch_loss = torch.tensor(state.epoch_loss, device=self.model.device)
        parts = self.config.training.accumulate * world()
        own_parts = range(rank(), parts, world())
        # Closed also when an exception leaves the loop, which would otherwise keep the loader's thread alive.
        with closing(self._loader.rest_of(state.epoch, state.epoch_step, own_parts, parts)) as batches:
            while state.epoch_step < len(plan):
                progress(state.step)
                loss, stop, due, time_over = self._update(batches, len(plan))
                self._epoch_loss += loss
                positions += self._positions
                state.epoch_step += 1
                state.step += 1
                bar(len(plan[state.epoch_step - 1]), self._note())
                if stop > 0:
                    self._stop()
                if state.epoch_step < len(plan):  # at the end of an epoch a validation may save
                    if time_over > 0:
                        state.loss, state.seconds = float(self._epoch_loss) / state.epoch_step, self._elapsed()
                        return
                    if due > 0:
                        self._save_now()
        state.loss = float(self._epoch_loss) / len(plan)
        state.epoch, state.epoch_step, state.epoch_loss = state.epoch + 1, 0, 0.0
        self._epoch_loss = torch.zeros(())
        state.seconds = self._elapsed()
        speed = {"positions_per_second": round(positions / (time.monotonic() - began))} if positions else {}
        fields = {"epoch": state.epoch, "step": state.step, "loss": state.loss, "seconds": state.seconds}
        self._log.event("epoch", **fields, **speed, **health.peak_memory(self.model.device))
        if due > 0 and not self._validation_due():
            self._save_now()

    def _update(self, batches: Iterator[DeviceTrainingBatch], steps_per_epoch: int) -> Tensor:
        """One update of the weights from the next batch, of which `batches` yields this process's parts.

        Returns four numbers, the same on all ranks: the loss of the batch; above 0 if a signal is pending on any
        rank; above 0 if it is time to save; above 0 if the time is over.
        """
        training, state = self.config.training, self.state
        # Dropout too is a function of (seed, epoch, step).
        stream = [training.seed, _DROPOUT, state.epoch, state.epoch_step, *([rank()] if rank() else [])]
        seed_generators(
            self.model.device, int(np.random.SeedSequence(stream).generate_state(1, np.uint64)[0]) >> 1
        )
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(training, state.step, steps_per_epoch)
        self._optimizer.zero_grad()
        decisions = torch.zeros(4, device=self.model.device)
        for place in range(training.accumulate):
            batch, last = next(batches), place == training.accumulate - 1
            self._positions = batch.positions
            with nullcontext() if last or world() == 1 else self._loss_of.no_sync():  # type: ignore[operator]
                loss, penalised = self._loss_of(batch, training.l2_emb if place == rank() == 0 else 0.0)
                decisions[0] += loss
                self._backward(penalised, loss)
        decisions[1] = pending()
        if rank() == 0:
            now = time.monotonic()
            decisions[2] = training.save_minutes and now - self._saved > 60 * training.save_minutes
            decisions[3] = training.max_minutes and now - self._began > 60 * training.max_minutes
        total = sum_over_ranks(decisions)[0]
        self._scaler.unscale_(self._optimizer)
        norm = health.gradient_norm(self.model)
        if not math.isfinite(float(total)) or not (math.isfinite(float(norm)) or self._may_overflow()):
            health.refuse(self.model, self._pass_again, self._where(), float(total))
        if training.diagnose_every and state.step % training.diagnose_every == 0 and rank() == 0:
            streams = stream_diagnostics(self.model, self._loader.batch(state.epoch, state.epoch_step))
            event = {"loss": float(total), "gradient_norm": float(norm), **streams}
            self._log.event("diagnostics", step=state.step, **event)
        if training.clip_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), training.clip_norm, norm)
        self._scaler.step(self._optimizer)  # skips the update if fp16 overflowed, and lowers the scale
        self._scaler.update()
        return decisions

    def _backward(self, penalised: Tensor, loss: Tensor) -> None:
        try:
            # DistributedDataParallel averages over processes, and parts must be summed.
            self._scaler.scale(penalised * world()).backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if not (self.config.training.detect_anomaly and "returned nan values" in str(error)):
                raise
            health.refuse(self.model, self._pass_again, self._where(), float(loss), str(error))

    def _where(self) -> str:
        lr = self._optimizer.param_groups[0]["lr"]
        return f"epoch {self.state.epoch + 1}, step {self.state.step} (lr {lr:g})"

    def _pass_again(self) -> None:
        """Repeat the forward pass of this process's parts of the current batch."""
        parts = self.config.training.accumulate * world()
        for part in range(rank(), parts, world()):
            batch = self._loader.batch(self.state.epoch, self.state.epoch_step, part, parts)
            _Loss(self.model, self.config)(batch, 0.0)

    def _may_overflow(self) -> bool:
        """Whether a non-finite gradient may only mean that the loss scale of fp16 is still too high."""
        return self._scaler.is_enabled() and self._scaler.get_scale() > 1

    def _validate_and_save(self) -> None:
        state = self.state
        try:
            score = self._validate()
        except InterruptedWorkError:
            self._stop()
        state.seconds, state.validated_step = self._elapsed(), state.step
        better = score is not None and (state.best_epoch == 0 or score > state.best_score)
        if score is not None and better:
            state.best_score, state.best_epoch = score, state.epoch + (state.epoch_step > 0)
        self._save_now(score)
        self._log.event("validation", epoch=state.epoch, step=state.step, score=score, best=better)
        shown = "" if score is None else f"  validation NDCG@10 {score:.4f}{' (best)' if better else ''}"
        self._log.say(f"epoch {state.epoch:4d}  loss {state.loss:.4f}{shown}  {state.seconds:.0f} s")

    def _stop(self) -> NoReturn:
        """Save unless the step is saved already, and raise for the signal, which another process may have got."""
        if self.state.step > self._saved_step:
            self._save_now()
        raise_for(pending() or signal.SIGTERM)

    def _save_now(self, score: float | None = None) -> None:
        """Rank 0 writes the checkpoint, and the other processes wait for it."""
        self.state.epoch_loss, self.state.scaler = float(self._epoch_loss), self._scaler.state_dict()

        def write() -> str:
            # A copy, because all processes must decide by the same state.
            state = replace(self.state, seconds=time.monotonic() - self._began)
            self._save(state, score, optimizer_tensors(self.model, self._optimizer))
            return ""

        self._saves += 1
        from_main(f"save/{self._saves}", write)
        self._saved, self._saved_step = time.monotonic(), self.state.step

    def _elapsed(self) -> float:
        """Seconds by the clock of rank 0, so that all processes decide equally."""
        mine = time.monotonic() - self._began if rank() == 0 else 0.0
        return float(sum_over_ranks(torch.tensor(mine, dtype=torch.float64)))

    def _validation_due(self) -> bool:
        state = self.state
        at_end = state.epoch_step == 0 and state.epoch % self.config.training.eval_every == 0
        return state.step > state.validated_step and (at_end or bool(self._limit_reached()))

    def _reason_to_stop(self) -> str:
        return self._limit_reached() or self._out_of_patience()

    def _limit_reached(self) -> str:
        training, state = self.config.training, self.state
        if state.epoch >= training.num_epochs:
            return f"all {training.num_epochs} epochs done"
        if training.max_minutes and state.seconds >= training.max_minutes * 60:
            return f"{training.max_minutes:g} minutes are over"
        return ""

    def _out_of_patience(self) -> str:
        training, stale = self.config.training, self.state.epoch - self.state.best_epoch
        validated = self.state.best_epoch and self.state.validated_step == self.state.step
        if validated and 0 < training.patience * training.eval_every <= stale:
            return f"no better validation for {stale} epochs"
        return ""

    def _note(self) -> str:
        best = "" if self.state.best_epoch == 0 else f", best NDCG@10 {self.state.best_score:.4f}"
        return f"epoch {self.state.epoch + 1}{best}"
