"""Replies to the rows of a file, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence

from tqdm import tqdm

from smoa_lightning.common.console import no_bar
from smoa_lightning.training.generate import check_prompts
from smoa_lightning.training.generation.prompts import OTHER_REPLY, REPLY, Prompt
from smoa_lightning.training.generation.reply_file import ReplyFile
from smoa_lightning.training.generation.speaker import Decoding, Speaker, load_speakers, memory_errors


def write_replies(
    speakers: Sequence[Speaker], prompts: Sequence[Prompt], decoding: Decoding, output: ReplyFile, batch_size: int
) -> tuple[int, int]:
    """Write the missing replies, and return how many rows were there and how many were added.

    The batches are those of a command that was never stopped: a resumed command generates the batch of its first
    missing row again as a whole. So the file has the same bytes.

    Args:
        speakers: What replies.
        prompts: All prompts of the file.
        decoding: How replies are generated.
        output: The file of replies.
        batch_size: Rows in a batch.

    Raises:
        UserError: A prompt does not fit, a model cannot be loaded, or another process writes the file.
    """
    check_prompts(speakers, prompts, decoding)
    with output.writing() as rows:  # the lock is held while models are loaded
        load_speakers(speakers)
        earlier = rows.done
        silent = no_bar()
        with tqdm(total=len(prompts), initial=earlier, desc="replies", unit="row", leave=False, disable=silent) as bar:
            for start in range(earlier - earlier % batch_size, len(prompts), batch_size):
                batch = prompts[start : start + batch_size]
                numbers = range(start, start + len(batch))
                with memory_errors(len(batch), "set a smaller --batch_size; the rows so far are kept"):
                    replies = [speaker.replies(batch, decoding, numbers) for speaker in speakers]
                made = [
                    prompt.row | dict(zip((REPLY, OTHER_REPLY), texts, strict=False))
                    for prompt, *texts in zip(batch, *replies, strict=True)
                ]
                added = made[max(0, rows.done - start) :]
                rows.add(added)
                bar.update(len(added))
        return earlier, rows.done - earlier
