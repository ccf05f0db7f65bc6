"""scripts/launch_multi_gpu.sh with a stand-in for the program."""

import contextlib
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "launch_multi_gpu.sh"
PATIENCE_S = 60  # on a machine with other work; what is waited for takes seconds at most


class LaunchMultiGpu(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def start(self, program, *arguments, **variables):
        """Launches a shell script, which finds the test's folder as $FOLDER."""
        stand_in = self.folder / "clip_lora"
        stand_in.write_text("#!/usr/bin/env bash\n" + program)
        stand_in.chmod(0o755)
        environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "OMP_NUM_THREADS")}
        environment |= {"CLIP_LORA": str(stand_in), "FOLDER": str(self.folder), "CUDA_VISIBLE_DEVICES": ""} | variables
        process = subprocess.Popen(
            [SCRIPT, *arguments], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        process.kill()
        process.communicate()

    def run_to_end(self, program, *arguments, **variables):
        process = self.start(program, *arguments, **variables)
        output, errors = process.communicate(timeout=PATIENCE_S)
        return process.returncode, output, errors

    def wait_for_files(self, *names):
        until = time.monotonic() + PATIENCE_S
        while not all((self.folder / name).exists() for name in names):
            self.assertLess(time.monotonic(), until, f"{names} have not all come")
            time.sleep(0.02)

    def assert_ended(self, pid_file):
        """That the process whose number is in a file of the folder is no more, or about to be none."""
        status = pathlib.Path("/proc", (self.folder / pid_file).read_text().strip(), "status")
        until = time.monotonic() + PATIENCE_S
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            while "State:\tZ" not in status.read_text():
                self.assertLess(time.monotonic(), until, f"{pid_file} has not ended")
                time.sleep(0.02)

    def test_each_process_has_its_environment_and_the_flags(self):
        code, output, errors = self.run_to_end(
            'echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $MASTER_PORT $OMP_NUM_THREADS $*" >"$FOLDER/$RANK"\n'
            'echo "output of $RANK"; echo "note of $RANK" >&2',
            "--processes", "3", "--dataset", "a b", "--processes", "7",
        )  # fmt: skip
        self.assertEqual((code, output, errors), (0, "output of 0\n", "note of 0\n"))
        lines = [(self.folder / str(rank)).read_text().split() for rank in range(3)]
        threads = str(max(1, len(os.sched_getaffinity(0)) // 3))
        for rank, line in enumerate(lines):
            self.assertEqual(line[:4], [str(rank), str(rank), "3", "127.0.0.1"])
            self.assertEqual(line[5:], [threads, "--dataset", "a", "b", "--processes", "7"])
        self.assertEqual(len({line[4] for line in lines}), 1)
        self.assertIn(int(lines[0][4]), range(1024, 65536))

    def test_one_process_per_visible_gpu(self):
        code, _, _ = self.run_to_end('touch "$FOLDER/$RANK"', "--lr", "1", CUDA_VISIBLE_DEVICES="4,5")
        self.assertEqual(code, 0)
        self.assertEqual({path.name for path in self.folder.iterdir()}, {"clip_lora", "0", "1"})

    def test_a_failure_ends_all_with_its_code_and_says_why(self):
        code, output, errors = self.run_to_end(
            '[ "$RANK" = 2 ] || echo "noise of $RANK" >&2\n'
            'echo $$ >"$FOLDER/pid$RANK"\n'
            'if [ "$RANK" = 2 ]; then\n'
            '  until [ -s "$FOLDER/pid0" ] && [ -s "$FOLDER/pid1" ]; do sleep 0.02; done\n'
            '  echo "clip_lora: the data is torn" >&2; exit 3\n'
            "fi\n"
            "exec sleep 600",
            "--processes", "3", "--grace", "1", "--lr", "1",
        )  # fmt: skip
        self.assertEqual((code, output), (3, ""))
        self.assertIn("[rank 2] clip_lora: the data is torn\n", errors)
        self.assertIn("noise of 0\n", errors)
        self.assertNotIn("[rank 0]", errors)
        self.assertNotIn("noise of 1", errors)
        for rank in range(3):
            self.assert_ended(f"pid{rank}")

    def test_who_ignores_sigterm_is_killed(self):
        code, _, errors = self.run_to_end(
            'echo $$ >"$FOLDER/pid$RANK"\n'
            'trap "" TERM\n'
            'if [ "$RANK" = 0 ]; then until [ -s "$FOLDER/pid1" ]; do sleep 0.02; done; echo mine >&2; exit 4; fi\n'
            "while true; do sleep 0.1; done",
            "--processes", "2", "--grace", "1", "--lr", "1",
        )  # fmt: skip
        self.assertEqual(code, 4)
        self.assertIn("mine\n", errors)
        self.assertIn("process 0 of 2 ended with code 4", errors)
        self.assert_ended("pid1")

    def test_a_killed_process_is_a_failure(self):
        code, _, errors = self.run_to_end(
            'if [ "$RANK" = 1 ]; then kill -KILL $$; fi; exec sleep 600',
            "--processes", "2", "--grace", "1", "--lr", "1",
        )  # fmt: skip
        self.assertEqual(code, 128 + signal.SIGKILL)
        self.assertIn("process 1 of 2 ended with code 137", errors)

    def test_the_others_may_say_what_they_noticed(self):
        _, _, errors = self.run_to_end(
            'if [ "$RANK" = 1 ]; then exit 3; fi; sleep 1; echo "process 1 of 2 is gone" >&2; exit 1',
            "--processes", "2", "--lr", "1",
        )  # fmt: skip
        self.assertIn("\nprocess 1 of 2 is gone\n", "\n" + errors)

    def test_signals_reach_each_process_once(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number.name):
                for path in self.folder.iterdir():
                    path.unlink()
                process = self.start(
                    f'trap \'echo caught >>"$FOLDER/caught$RANK"\' {number.value}\n'
                    'touch "$FOLDER/ready$RANK"\n'
                    'until [ -s "$FOLDER/caught$RANK" ]; do sleep 0.02; done\n'
                    f"sleep 0.3; exit {128 + number.value}",
                    "--processes", "2", "--lr", "1",
                )  # fmt: skip
                self.wait_for_files("ready0", "ready1")
                process.send_signal(number)
                process.communicate(timeout=PATIENCE_S)
                self.assertEqual(process.returncode, 128 + number)
                for rank in range(2):
                    self.assertEqual((self.folder / f"caught{rank}").read_text(), "caught\n")

    def test_usage_errors_start_nothing(self):
        for arguments, complaint in (
            ([], "expected the flags of clip_lora"),
            (["--processes", "two", "--lr", "1"], "--processes 'two': expected a number"),
            (["--processes"], "--processes ''"),
            (["--processes", "0", "--lr", "1"], "shows no GPU"),
        ):
            code, _, errors = self.run_to_end('touch "$FOLDER/started"', *arguments)
            self.assertEqual(code, 2, arguments)
            self.assertIn(complaint, errors)
        code, _, errors = self.run_to_end("", "--processes", "2", "--lr", "1", CLIP_LORA="/none/clip_lora")
        self.assertEqual(code, 2)
        self.assertIn("there is no program '/none/clip_lora'", errors)
        self.assertFalse((self.folder / "started").exists())

    def test_help(self):
        code, output, _ = self.run_to_end("", "--help")
        self.assertEqual(code, 0)
        self.assertTrue(output.startswith("Usage: scripts/launch_multi_gpu.sh"))


if __name__ == "__main__":
    unittest.main()
