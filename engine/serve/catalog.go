package serve

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/r2-reasoner/r2/engine"
	"github.com/r2-reasoner/r2/router/openai"
)

// A Catalog is the models a server has, by name. It is safe for concurrent use.
type Catalog struct {
	Source *Source // of adapters; nil: none are loaded. Set before the first call

	loading sync.Mutex // held while an adapter is brought in

	mu          sync.RWMutex
	entries     map[string]entry
	generations map[string]int // of each name an adapter has had
}

type entry struct {
	card   openai.Card
	model  openai.Model
	policy *policy // of an adapter
}

var (
	_ openai.Catalog = (*Catalog)(nil)
	_ openai.Loader  = (*Catalog)(nil)
)

// Add adds a model under its card's name, which no other has.
func (c *Catalog) Add(card openai.Card, m openai.Model) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if card.Name == "" {
		return fmt.Errorf("a model needs a name")
	}
	if _, twice := c.entries[card.Name]; twice {
		return fmt.Errorf("two models are named %q", card.Name)
	}
	if c.entries == nil {
		c.entries = map[string]entry{}
	}
	c.entries[card.Name] = entry{card: card, model: m}
	return nil
}

// Cards describes them, by name.
func (c *Catalog) Cards() []openai.Card {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var list []openai.Card
	for _, e := range c.entries {
		list = append(list, e.card)
	}
	slices.SortFunc(list, func(a, b openai.Card) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Find returns the model of that name.
func (c *Catalog) Find(name string) (openai.Model, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e, ok := c.entries[name]
	return e.model, ok
}

// Ready makes a forward pass.
func (h *Host) Ready(ctx context.Context) error {
	for _, err := range h.Engine.Generate(ctx, engine.Request{Prompt: []int32{0}, Samples: 1, Limit: 1}) {
		if err != nil {
			return err
		}
	}
	return nil
}
