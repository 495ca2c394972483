package main

import (
	"crypto/rand"
	"embed"
	"html/template"
	"net/http"

	"github.com/r2-reasoner/r2/router"
)

//go:embed page
var pageFiles embed.FS

var (
	pageHTML = template.Must(template.ParseFS(pageFiles, "page/index.html"))
	pageJS   = func() template.JS {
		text, err := pageFiles.ReadFile("page/page.js")
		if err != nil {
			panic(err)
		}
		return template.JS(text)
	}()
)

// withPage answers GET / with the page, and has h answer the rest. The page knows the pool; all else it asks
// of the service, as any client does. It loads nothing from elsewhere.
func withPage(h http.Handler, pool []router.Card) http.Handler {
	if pool == nil {
		pool = []router.Card{}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" || r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.ServeHTTP(w, r)
			return
		}
		nonce := rand.Text()
		head := w.Header()
		head.Set("Content-Type", "text/html; charset=utf-8")
		head.Set("Cache-Control", "no-store")
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Referrer-Policy", "no-referrer")
		head.Set("Content-Security-Policy", "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "+
			"style-src 'nonce-"+nonce+"'; style-src-attr 'unsafe-inline'; script-src 'nonce-"+nonce+"'")
		pageHTML.Execute(w, map[string]any{"Nonce": nonce, "Pool": pool, "Script": pageJS}) // an error: the client is gone
	})
}
