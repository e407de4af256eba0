// Command mkimage makes a raw template image for the lab: its first blocks carry a label, the rest is a hole.
//
//	go run ./tests/lab/guest/mkimage --label rocky9 --size 64M --data 8M OUT
//	qemu-img convert -f raw -O qcow2 OUT OUT.qcow2
//
// A guest that stands on the image verifies the label. Another --seed gives an image of the same label and size with
// other bytes, which the guest tells apart as well.
package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/wherry-kvm/wherry/tests/lab/guest/image"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("mkimage", flag.ContinueOnError)
	label := flags.String("label", "template", "label in every block, at most 32 bytes")
	seed := flags.String("seed", "1", "tells images of one label apart, at most 32 bytes")
	size := flags.String("size", "64M", "virtual size")
	data := flags.String("data", "8M", "bytes filled, at most half the size")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("wants one argument, the file to make")
	}
	sizeBytes, err := parseSize(*size)
	if err != nil {
		return err
	}
	dataBytes, err := parseSize(*data)
	if err != nil {
		return err
	}
	return image.Make(flags.Arg(0), *label, *seed, sizeBytes, dataBytes)
}

// parseSize reads a number of bytes with an optional K, M or G.
func parseSize(text string) (int64, error) {
	number, shift := text, 0
	if i := strings.IndexAny(text, "KMG"); i >= 0 && i == len(text)-1 {
		number, shift = text[:i], 10*(1+strings.IndexByte("KMG", text[i]))
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > 1<<40>>shift {
		return 0, fmt.Errorf("size %q is not a number of bytes with K, M or G", text)
	}
	return n << shift, nil
}
