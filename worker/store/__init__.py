"""Where an owner keeps its orders. In memory; a store on the disk beside it would pass the same contract tests."""
