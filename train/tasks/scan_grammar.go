package tasks

import (
	"fmt"
	"slices"
	"strings"
)

// The grammar of SCAN's commands (Lake and Baroni 2018, supplement):
//
//	command  = sentence [("and" | "after") sentence]
//	sentence = phrase ["twice" | "thrice"]
//	phrase   = verb | verb ["opposite" | "around"] direction      ("turn" always with a direction)
var (
	scanVerbs      = []string{"walk", "look", "run", "jump"}
	scanDirections = []string{"left", "right"}
)

// SCANActions interprets a command: the actions it asks for, in order.
func SCANActions(command string) ([]string, error) {
	phrases, err := scanPhrases(command)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range phrases {
		out = append(out, p.actions()...)
	}
	return out, nil
}

// SCANSubtasks splits a command into phrases without "and", "after", "twice" and "thrice", in the order
// in which they are to be done: the actions of the phrases end to end are those of the command. It
// makes training data; a router must find its plans by itself.
func SCANSubtasks(command string) ([]string, error) {
	phrases, err := scanPhrases(command)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range phrases {
		out = append(out, p.String())
	}
	return out, nil
}

// SCANPhrases lists all 34 phrases there are: what a subtask can be.
func SCANPhrases() []string {
	var out []string
	for _, v := range append([]string{"turn"}, scanVerbs...) {
		if v != "turn" {
			out = append(out, scanPhrase{verb: v}.String())
		}
		for _, how := range []string{"", "opposite", "around"} {
			for _, d := range scanDirections {
				out = append(out, scanPhrase{v, how, d}.String())
			}
		}
	}
	return out
}

// scanPhrase is a verb, how it turns before it acts, and in which direction; how may be empty, and
// direction too where the verb goes straight ahead.
type scanPhrase struct{ verb, how, direction string }

func (p scanPhrase) String() string {
	return strings.Join(strings.Fields(p.verb+" "+p.how+" "+p.direction), " ")
}

// actions are the phrase's: turn once, twice if opposite, then act; around does so four times.
func (p scanPhrase) actions() []string {
	var once []string
	if p.direction != "" {
		once = append(once, "I_TURN_"+strings.ToUpper(p.direction))
	}
	if p.how == "opposite" {
		once = append(once, once[0])
	}
	if p.verb != "turn" {
		once = append(once, "I_"+strings.ToUpper(p.verb))
	}
	if p.how == "around" {
		return slices.Repeat(once, 4)
	}
	return once
}

// scanPhrases parses a command into its phrases in the order of doing.
func scanPhrases(command string) ([]scanPhrase, error) {
	words := strings.Fields(command)
	at := slices.IndexFunc(words, func(w string) bool { return w == "and" || w == "after" })
	if at < 0 {
		return scanSentence(words)
	}
	first, err := scanSentence(words[:at])
	if err != nil {
		return nil, err
	}
	second, err := scanSentence(words[at+1:])
	if err != nil {
		return nil, err
	}
	if words[at] == "after" {
		first, second = second, first
	}
	return append(first, second...), nil
}

func scanSentence(words []string) ([]scanPhrase, error) {
	times, rest := 1, words
	if n := len(words); n > 0 && words[n-1] == "twice" {
		times, rest = 2, words[:n-1]
	} else if n > 0 && words[n-1] == "thrice" {
		times, rest = 3, words[:n-1]
	}
	var p scanPhrase
	switch len(rest) {
	case 1:
		p = scanPhrase{verb: rest[0]}
	case 2:
		p = scanPhrase{verb: rest[0], direction: rest[1]}
	case 3:
		p = scanPhrase{rest[0], rest[1], rest[2]}
	}
	turning := p.verb == "turn"
	if !turning && !slices.Contains(scanVerbs, p.verb) ||
		p.direction != "" && !slices.Contains(scanDirections, p.direction) || turning && p.direction == "" ||
		len(rest) == 3 && p.how != "opposite" && p.how != "around" {
		return nil, fmt.Errorf("scan: %.80q is not a command", strings.Join(words, " "))
	}
	return slices.Repeat([]scanPhrase{p}, times), nil
}
