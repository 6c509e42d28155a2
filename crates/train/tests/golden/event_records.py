"""Writes event_records.txt: records of an event file as TensorBoard's own writer makes them, in hexadecimal, one a line.

usage: event_records.py      (tensorboard; the version used is in the file)
"""
import io, pathlib
import tensorboard
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

def record(event):
    out = io.BytesIO()
    RecordWriter(out).write(event.SerializeToString())
    return out.getvalue().hex()

value = lambda tag, number: summary_pb2.Summary.Value(tag=tag, simple_value=number)
first = event_pb2.Event(file_version="brain.Event:2")
scalars = event_pb2.Event(wall_time=1.5e9, step=7, summary=summary_pb2.Summary(value=[value("train/loss", 0.), value("validation/loss", .25)]))
lines = [f"# tensorboard {tensorboard.__version__}", record(first), record(scalars)]
pathlib.Path(__file__).with_name("event_records.txt").write_text("\n".join(lines) + "\n")
