package main

type benchCmd struct{}

func (benchCmd) Run() error { return usage("not there yet") }
