# The same four commands for fingers that type `make`: make run ARGS="02 --profile standard"
PYTHON ?= python3

.PHONY: run test lab data
run test lab data:
	$(PYTHON) course.py $@ $(ARGS)
