"""TensorBoard scalars. docs/metrics.md defines every tag."""

from tensorboardX import SummaryWriter

from rl.evaluation import summarize


class Logger:
    """Writes a run's scalars as TensorBoard events.

    Args:
        folder: the run's log folder.
    """

    def __init__(self, folder):
        self.writer = SummaryWriter(str(folder))

    def training(self, iteration, phases, report, times, restarts):
        """One iteration of meta-training.

        Args:
            iteration: its number.
            phases: `Phases` before and after the update.
            report: the outer step's `StepReport`.
            times: dict name -> seconds.
            restarts: workers replaced so far.
        """
        before, after = phases.episodes
        self.scalar("policy/actions_train", mean_action(before), iteration)
        self.scalar("policy/actions_test", mean_action(after), iteration)
        for name, episodes in (("before_update", before), ("after_update", after)):
            mean, half_width = summarize(episodes.returns)
            self.scalar(f"running_returns/{name}", mean, iteration)
            self.scalar(f"running_cfis/{name}", half_width, iteration)
        self.scalar("loss/inner_rl", report.inner_loss, iteration)
        self.scalar("loss/outer_rl", report.surrogate_before, iteration)
        for name in ("kl", "step_size", "backtracks", "cg_residual", "gradient_norm"):
            self.scalar(f"trpo/{name}", getattr(report, name), iteration)
        self.scalar("trpo/improvement", report.surrogate_before - report.surrogate_after, iteration)
        self.scalar("baseline/ridge_retries", report.ridge_retries, iteration)
        self.scalar("sampler/worker_restarts", restarts, iteration)
        if "unstable" in before.infos:
            unstable = sum(int(episodes.infos["unstable"].sum()) for episodes in phases.episodes)
            self.scalar("env/unstable_episodes", unstable, iteration)
        for name, seconds in times.items():
            self.scalar(f"time/{name}", seconds, iteration)
        steps = before.steps + after.steps
        self.scalar("time/env_steps_per_second", steps / max(times["sampling"], 1e-9), iteration)

    def evaluation(self, iteration, phases, seconds):
        """One evaluation: the mean return after each number of updates."""
        for updates, episodes in enumerate(phases.episodes):
            mean, half_width = summarize(episodes.returns)
            self.scalar(f"evaluation_rew/avg_rew {updates}", mean, iteration)
            self.scalar(f"evaluation_cfi/avg_rew {updates}", half_width, iteration)
        self.scalar("time/evaluation", seconds, iteration)

    def scalar(self, tag, value, iteration):
        """One point of one curve."""
        self.writer.add_scalar(tag, float(value), iteration)

    def close(self):
        """Write what is pending."""
        self.writer.close()


def mean_action(episodes):
    """The mean over all valid steps (and action dimensions) of what was done."""
    mask = episodes.mask.reshape(episodes.mask.shape + (1,) * (episodes.actions.ndim - 3))
    return float((episodes.actions * mask).mean() / mask.mean())
