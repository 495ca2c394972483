package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/r2-reasoner/r2/router"
	"github.com/r2-reasoner/r2/router/replay"
)

// A routerConfig is an r2.yaml. Paths in it are relative to the file's folder.
type routerConfig struct {
	Router    routerSection  `yaml:"router"`
	Pool      []memberConfig `yaml:"pool"`
	Integrate struct {
		Model string `yaml:"model"` // of the pool; left out: the model of the last subtask
		Rule  string `yaml:"rule"`  // concatenate: no model is asked
	} `yaml:"integrate"`
	Review struct {
		Model string `yaml:"model"`
	} `yaml:"review"`
	Limits struct {
		Subtasks int           `yaml:"subtasks"`
		Calls    int           `yaml:"calls"`
		USD      *router.Money `yaml:"usd"`
	} `yaml:"limits"`
	Budget struct {
		USD *router.Money `yaml:"usd"`
	} `yaml:"budget"`
	Record string      `yaml:"record"` // every exchange, in this file
	Replay replay.Mode `yaml:"replay"` // off: always ask; fill: ask what is not recorded; only: never ask

	dir string
}

type routerSection struct {
	Model      string       `yaml:"model"`
	Decomposer moduleConfig `yaml:"decomposer"`
	Allocator  moduleConfig `yaml:"allocator"`
	Confidence *struct {
		Model string  `yaml:"model"` // of the pool
		Alpha float64 `yaml:"alpha"`
		Easy  float64 `yaml:"easy"`
		Hard  float64 `yaml:"hard"`
	} `yaml:"confidence"`
	Solve string `yaml:"solve"` // prompt of subtasks: instruct, compact, or a file
}

// A moduleConfig is one of the router's two policies.
type moduleConfig struct {
	Adapter  string `yaml:"adapter"`  // left out: the base model, with its prompt
	Prompt   string `yaml:"prompt"`   // instruct, compact, or a file
	By       string `yaml:"by"`       // of the allocator: model, threshold, random, or the name of a pool model
	Fallback string `yaml:"fallback"` // of the allocator: threshold
}

type memberConfig struct {
	Name        string        `yaml:"name"`
	Group       router.Group  `yaml:"group"`
	Rank        int           `yaml:"rank"`
	Model       string        `yaml:"model"`   // served in this process …
	Adapter     string        `yaml:"adapter"` // with this adapter
	URL         string        `yaml:"url"`     // … or reached over HTTP
	Remote      string        `yaml:"remote"`
	KeyEnv      string        `yaml:"key_env"`
	Key         string        `yaml:"key"` // refused: a key does not belong into a file
	Price       router.Price  `yaml:"price"`
	Limit       int           `yaml:"limit"`
	Concurrency int           `yaml:"concurrency"`
	Timeout     time.Duration `yaml:"timeout"`
}

// readConfig reads an r2.yaml. An unknown key is an error with its line.
func readConfig(path string) (*routerConfig, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := &routerConfig{dir: filepath.Dir(path)}
	if err := yaml.UnmarshalWithOptions(b, c, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("%s: %s", path, yaml.FormatError(err, false, false))
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func (c *routerConfig) check() error {
	switch {
	case c.Router.Model == "":
		return fmt.Errorf("router.model is missing: the model that plans and allocates")
	case len(c.Pool) == 0:
		return fmt.Errorf("pool is empty: name at least one model")
	case c.Integrate.Model != "" && c.Integrate.Rule != "":
		return fmt.Errorf("integrate: give a model or a rule, not both")
	case c.Integrate.Rule != "" && c.Integrate.Rule != "concatenate":
		return fmt.Errorf("integrate.rule %q is not known: there is concatenate", c.Integrate.Rule)
	case c.Replay != "" && c.Record == "":
		return fmt.Errorf("replay needs record: the file that holds the exchanges")
	case c.Limits.Subtasks < 0 || c.Limits.Calls < 0:
		return fmt.Errorf("limits must not be negative")
	}
	for i, m := range c.Pool {
		name := m.Name
		if name == "" {
			return fmt.Errorf("pool: member %d has no name", i+1)
		}
		switch {
		case m.Key != "":
			return fmt.Errorf("pool: %s: a key does not belong into a file: name the variable that holds it with key_env", name)
		case (m.Model == "") == (m.URL == ""):
			return fmt.Errorf("pool: %s: give either model (served here) or url (reached over HTTP)", name)
		case m.Model != "" && (m.Remote != "" || m.KeyEnv != ""):
			return fmt.Errorf("pool: %s: remote and key_env belong to a url", name)
		case m.URL != "" && m.Adapter != "":
			return fmt.Errorf("pool: %s: an adapter belongs to a model served here", name)
		case m.Rank < 1:
			return fmt.Errorf("pool: %s: rank %d: the order of capability begins at 1", name, m.Rank)
		case m.Group == 0:
			return fmt.Errorf("pool: %s: group is missing: slm, mlm or llm", name)
		}
	}
	return nil
}

// remember has what models answer over HTTP kept in a file and asked for once, where the configuration
// keeps no record of its own: a training run that is killed goes on with the answers it had.
func (c *routerConfig) remember(file string) (err error) {
	remote := slices.ContainsFunc(c.Pool, func(m memberConfig) bool { return m.URL != "" })
	if c.Record == "" && remote {
		c.Record, err = filepath.Abs(file)
		c.Replay = replay.Fill
	}
	return err
}

// path is a path of the configuration as seen from here.
func (c *routerConfig) path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(c.dir, p)
}
