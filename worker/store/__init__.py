"""Where an owner keeps its orders. In memory; a store on a local disk would pass the same contract tests."""
