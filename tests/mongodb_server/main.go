// mongodb_server - the MongoDB protocol for tests and benchmarks: the FerretDB gateway, as a
// library, in front of a PostgreSQL with the DocumentDB extension. scripts/servers builds and runs
// it; README.md says what it answers like MongoDB and what it does not.
//
// It ends on SIGTERM and SIGINT. Nothing is reported to anybody: telemetry is off.
package main

import (
	"context"
	"flag"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/FerretDB/FerretDB/v2/ferretdb"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:27017", "address of the MongoDB protocol")
	pg := flag.String("pg", "", "URL of PostgreSQL: postgres://postgres@/postgres?host=DIRECTORY")
	dir := flag.String("dir", "", "state directory, made if it is missing")
	flag.Parse()
	if *pg == "" || *dir == "" || flag.NArg() != 0 {
		flag.Usage()
		os.Exit(2)
	}

	telemetry := false
	gateway, err := ferretdb.New(&ferretdb.Config{
		PostgreSQLURL: *pg,
		ListenAddr:    *listen,
		StateDir:      *dir,
		Telemetry:     &telemetry,
		LogLevel:      slog.LevelWarn,
		LogOutput:     os.Stderr,
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	gateway.Run(ctx)
}
