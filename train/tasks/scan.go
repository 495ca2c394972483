package tasks

import (
	"bufio"
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strings"
)

// SCAN (Lake and Baroni 2018): commands such as "jump twice and walk" are to be written as actions,
// "I_JUMP I_JUMP I_WALK". These are the files of its length split, where the answers in test are
// longer (24 to 48 actions) than any in train (up to 22), as in github.com/brendenlake/SCAN at
// c4b756cbc010, compressed; their licence is beside them.
var (
	//go:embed scan/tasks_train_length.txt.gz
	scanTrain []byte
	//go:embed scan/tasks_test_length.txt.gz
	scanTest []byte
)

// SCAN returns the tasks of a part of SCAN's length split, in the order of its files.
func SCAN(split string) ([]Task, error) {
	file, data := "train", scanTrain
	switch split {
	case "train", "dev":
	case "test":
		file, data = "test", scanTest
	default:
		return nil, fmt.Errorf("scan: no split %q: there is %s", split, strings.Join(Splits, ", "))
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	all, err := ParseSCAN(z, "scan-length/"+file)
	if err != nil {
		return nil, err
	}
	if split == "test" {
		return all, nil
	}
	return part(all, split), nil
}

// ParseSCAN reads lines "IN: command OUT: actions". Tasks get the IDs name/0, name/1 …
func ParseSCAN(r io.Reader, name string) ([]Task, error) {
	var all []Task
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		t, err := parseSCANLine(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("scan: line %d: %w", len(all)+1, err)
		}
		t.ID = fmt.Sprintf("%s/%d", name, len(all))
		all = append(all, t)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("scan: line %d: %w", len(all)+1, err)
	}
	return all, nil
}

func parseSCANLine(line string) (Task, error) {
	rest, ok := strings.CutPrefix(line, "IN: ")
	command, actions, both := strings.Cut(rest, " OUT: ")
	command, actions = strings.TrimSpace(command), strings.TrimSpace(actions)
	if !ok || !both || command == "" || actions == "" {
		return Task{}, fmt.Errorf("%.60q is not of the form \"IN: command OUT: actions\"", line)
	}
	return Task{Question: command, Answer: actions}, nil
}

// CheckSCAN reports whether the answer is the known sequence of actions, all of it and nothing else;
// white space does not count.
func CheckSCAN(answer, known string) bool {
	want := strings.Fields(known)
	return len(want) > 0 && slices.Equal(strings.Fields(answer), want)
}
