"""The training loop: batch -> loss -> step -> maybe validate -> maybe stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sasrec.config import RunConfig
from sasrec.data.batches import TrainingBatch, TrainingBatches
from sasrec.errors import TrainingError
from sasrec.losses import training_loss
from sasrec.models import SequenceModel
from sasrec.models.diagnostics import stream_diagnostics
from sasrec.training.compiled import compile_encoder
from sasrec.training.interrupt import deferred_interrupt
from sasrec.training.optimizer import build_optimizer
from sasrec.training.run_log import Bar, RunLog

_DROPOUT = 2  # sub-stream of the seed; batches.py has 0 and 1


@dataclass
class TrainingState:
    """How far training is."""

    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    """Updates of the weights."""
    seconds: float = 0.0
    """Wall clock, validation included."""
    best_score: float = -math.inf
    best_epoch: int = 0
    stopped: str = ""
    """Why training ended."""


class Trainer:
    """Trains a model; validation and saving are handed in, so this layer knows neither metrics nor files."""

    def __init__(
        self,
        model: SequenceModel,
        batches: TrainingBatches,
        config: RunConfig,
        *,
        validate: Callable[[], float | None],
        save: Callable[[TrainingState, float | None], None],
        log: RunLog,
    ) -> None:
        """`validate` returns the score that decides (higher is better), or None where there is nothing to
        validate on; `save(state, score)` publishes the weights as they are, after each validation."""
        self.model, self.batches, self.config = model, batches, config
        self.state = TrainingState()
        self._validate, self._save, self._log = validate, save, log
        self._optimizer = build_optimizer(model, config.training)
        self._saved_step = 0

    def fit(self) -> TrainingState:
        """Train until the epochs, the time or the patience run out; the best weights are those saved with
        the highest score.

        Raises: TrainingError if the loss stops being finite. On Ctrl-C the weights are saved, then
        KeyboardInterrupt goes on.
        """
        training, state = self.config.training, self.state
        began = time.monotonic()
        total = training.num_epochs * len(self.batches)
        if training.compile:
            self._log.say("compiling the model: this can take a minute")
            compile_encoder(self.model, self.batches.batch(0, 0), self.config.loss, self._log.say)
        try:
            with deferred_interrupt() as check, self._log.bar("training", total) as bar:
                while not state.stopped:
                    loss = self._train_epoch(bar, check)
                    state.epoch += 1
                    state.seconds = time.monotonic() - began
                    self._log.event("epoch", epoch=state.epoch, step=state.step, loss=loss, seconds=state.seconds)
                    state.stopped = self._limit_reached()
                    if state.stopped or state.epoch % training.eval_every == 0:
                        self._validate_and_save(loss, began)
                        state.stopped = state.stopped or self._out_of_patience()
                    check()
        except KeyboardInterrupt:
            state.stopped = "interrupted"
            if state.step > self._saved_step:
                self._save(state, None)
            raise
        self._log.event("stopped", reason=state.stopped, best_epoch=state.best_epoch, seconds=state.seconds)
        self._log.say(f"stopped after {state.epoch} epochs: {state.stopped}")
        return state

    def _train_epoch(self, bar: Bar, check_interrupt: Callable[[], None]) -> float:
        """One pass over the users; returns the mean loss of its batches."""
        self.model.train()
        total = torch.zeros((), device=self.model.device)
        plan = self.batches.plan(self.state.epoch)
        for step, users in enumerate(plan):
            # Dropout too is a function of (seed, epoch, step).
            stream = [self.config.training.seed, _DROPOUT, self.state.epoch, step]
            torch.manual_seed(int(np.random.SeedSequence(stream).generate_state(1, np.uint64)[0]) >> 1)
            batch = self.batches.batch(self.state.epoch, step)
            loss = training_loss(self.model, batch, self.config.loss)
            total += loss.detach()
            self._step(loss, batch)
            self.state.step += 1
            bar(len(users), self._note())
            check_interrupt()
        mean = float(total) / len(plan)
        if not math.isfinite(mean):
            raise TrainingError(
                f"the loss is {mean} in epoch {self.state.epoch + 1}: lower lr ({self.config.training.lr})"
            )
        return mean

    def _step(self, loss: Tensor, batch: TrainingBatch) -> None:
        if self.config.training.l2_emb > 0:
            loss = loss + self.config.training.l2_emb * self.model.item_embedding.weight.square().sum()
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        every = self.config.training.diagnose_every
        if every and self.state.step % every == 0:
            self._diagnose(float(loss.detach()), batch)
        self._optimizer.step()

    def _diagnose(self, loss: float, batch: TrainingBatch) -> None:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        streams = stream_diagnostics(self.model, batch)
        self._log.event("diagnostics", step=self.state.step, loss=loss, gradient_norm=norm, **streams)

    def _validate_and_save(self, loss: float, began: float) -> None:
        state = self.state
        score = self._validate()
        state.seconds = time.monotonic() - began
        better = score is not None and score > state.best_score
        if score is not None and better:
            state.best_score, state.best_epoch = score, state.epoch
        self._save(state, score)
        self._saved_step = state.step
        self._log.event("validation", epoch=state.epoch, step=state.step, score=score, best=better)
        shown = "" if score is None else f"  validation NDCG@10 {score:.4f}{' (best)' if better else ''}"
        self._log.say(f"epoch {state.epoch:4d}  loss {loss:.4f}{shown}  {state.seconds:.0f} s")

    def _limit_reached(self) -> str:
        training, state = self.config.training, self.state
        if state.epoch >= training.num_epochs:
            return f"all {training.num_epochs} epochs done"
        if training.max_minutes and state.seconds >= training.max_minutes * 60:
            return f"{training.max_minutes:g} minutes are over"
        return ""

    def _out_of_patience(self) -> str:
        training, stale = self.config.training, self.state.epoch - self.state.best_epoch
        if self.state.best_epoch and 0 < training.patience * training.eval_every <= stale:
            return f"no better validation for {stale} epochs"
        return ""

    def _note(self) -> str:
        best = "" if self.state.best_epoch == 0 else f", best NDCG@10 {self.state.best_score:.4f}"
        return f"epoch {self.state.epoch + 1}{best}"
