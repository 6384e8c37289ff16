"""The end of a script, run by `forking.run_python`, that kills a job at random moments until it has been killed enough.

The script before it defines `start(folder)`, which forks the job and gives its process id, `restart()`, which puts the
folder `killed` back to its beginning, and `num_kills`, `chance` (a `random.Random`) and `kills` (0). It imports os,
signal and time. At the end the jobs in `whole`, never killed, and in `killed` are both done.
"""

KILL_LOOP = """
def succeeded(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
begin = time.monotonic()
assert succeeded(start("whole"))
whole_seconds = time.monotonic() - begin
while kills < num_kills:
    child = start("killed")
    time.sleep(chance.uniform(0, whole_seconds))
    os.kill(child, signal.SIGKILL)
    if succeeded(child):  # it was faster: once more from the beginning
        restart()
    else:
        kills += 1
assert succeeded(start("killed"))
"""
