"""Questions about a setup that no forward pass answers: tokenizer, data, disk, memory, clocks, a run's own record."""

from linnet.doctor.findings import Check
from linnet.doctor.setup import data, ending, machine, record, room, text
from linnet.doctor.setup.subject import Setup
from linnet.train import RunDirectory

SETUP_CHECKS: tuple[Check[Setup], ...] = (
    Check("device", machine.device),
    Check("clocks", machine.clocks),
    Check("device synchronization", machine.waits_for_device),
    Check("disk space", room.on_disk),
    Check("memory", room.in_memory),
    Check("tokenizer round trip", text.round_trip),
    Check("bytes without a token", text.every_byte),
    Check("ids and vocabulary", text.ids_fit),
    Check("special ids", text.special_ids_fit),
    Check("end of text in generation", ending.ends_generation),
    Check("end of text in data", ending.ends_documents),
    Check("end of text in an export", ending.kept_by_export),
    Check("data hashes", data.whole),
    Check("ids in the data", data.ids_below_vocabulary),
    Check("amount of data", data.enough),
    Check("splits apart", data.splits_apart),
    Check("text of the run", data.same_text),
)
RUN_CHECKS: tuple[Check[RunDirectory], ...] = tuple(Check(name, question) for name, question in record.RUN_QUESTIONS)

__all__ = ["RUN_CHECKS", "SETUP_CHECKS", "Setup"]
