"""A C compiler that works on several files at a time: setuptools compiles the files of one extension one by one."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from setuptools.command.build_ext import build_ext


class BuildExtensions(build_ext):
    """`build_ext` with as many compilers at a time as there are processors."""

    def build_extension(self, ext: Any) -> None:
        compiler: Any = self.compiler
        compile_all, compile_one = compiler.compile, compiler._compile

        def compile(*args: Any, **named: Any) -> Any:
            """What each file's compiler raises is raised here."""
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                begun: list[Future[None]] = []
                compiler._compile = lambda *each: begun.append(pool.submit(compile_one, *each))
                objects = compile_all(*args, **named)
                for each in begun:
                    each.result()
            return objects

        compiler.compile = compile
        try:
            super().build_extension(ext)
        finally:
            compiler.compile, compiler._compile = compile_all, compile_one
