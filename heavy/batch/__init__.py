"""Many questions over one client: bounded, resumable, within a budget; results and logs in a directory.

    questions = read_questions(Path("input.jsonl"))
    async with HeavyClient("127.0.0.1:50051", patience_s=300) as heavy:
        ended = await Batch(heavy, questions.questions, Path("out"), BatchPlan(policy)).run()
    for result in latest(read_results(Path("out"))).values():
        print(result.id, result.short_answer, result.ledger.total.cost_usd)
        for record in read_log(Path("out"), result): ...

| module | what it holds |
|---|---|
| `questions` | `Question`, and reading them from JSONL |
| `results` | `BatchResult`: one ended run, a line of `results.jsonl` |
| `directory` | the directory: manifest, results, logs, lock; what survives any death |
| `budget` | what the whole batch may cost, with what is in flight counted |
| `throttle` | how many are asked at once; fewer while the server is full |
| `runner` | `Batch`: asks, follows, writes |

A run is asked for detached, under a request id made of batch and question: a batch that dies between asking
and writing finds its runs again when it is run again, and pays for none of them twice.
"""
