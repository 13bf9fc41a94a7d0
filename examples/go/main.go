// Publish texts to headrace, and read its answers, each once and in the order of its partition.
//
//	headrace-example publish BOOTSTRAP REQUESTS        a text a line from standard input
//	headrace-example read BOOTSTRAP RESULTS GROUP      until SIGTERM; members of a group share the partitions
//
// Each acknowledged request and each accepted answer is a line of JSON on standard output.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/signal"
	"syscall"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func main() {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	err := errors.New("usage: headrace-example publish BOOTSTRAP REQUESTS | read BOOTSTRAP RESULTS GROUP")
	switch arguments := os.Args[1:]; {
	case len(arguments) == 3 && arguments[0] == "publish":
		err = publish(stop, arguments[1], arguments[2])
	case len(arguments) == 4 && arguments[0] == "read":
		err = read(stop, arguments[1], arguments[2], arguments[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func print(line any) {
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		panic(err)
	}
}

type request struct {
	Text string `json:"text"`
	ID   string `json:"id"`
}

type acknowledged struct {
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	CRC       uint32 `json:"crc"`
}

// publish sends a request for each line. franz-go waits for all in-sync replicas and is idempotent unless told otherwise,
// which the promise needs: only what all of them have is never lost.
func publish(stop context.Context, bootstrap, topic string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.DefaultProduceTopic(topic))
	if err != nil {
		return err
	}
	defer client.Close()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	failed := make(chan error, 1)
	for number := 0; lines.Scan(); number++ {
		value, err := json.Marshal(request{lines.Text(), fmt.Sprint("line-", number)})
		if err != nil {
			return err
		}
		// It blocks while too many wait, so memory is bounded. Promises are called one after another.
		client.Produce(stop, &kgo.Record{Value: value}, func(record *kgo.Record, err error) {
			if err == nil {
				print(acknowledged{record.Partition, record.Offset, crc32.ChecksumIEEE(record.Value)})
				return
			}
			select {
			case failed <- err:
			default:
			}
		})
	}
	if err := errors.Join(lines.Err(), client.Flush(stop)); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

type answer struct {
	Partition int32   `json:"partition"`
	Offset    int64   `json:"offset"`
	After     int64   `json:"after"`
	CRC       uint32  `json:"crc"`
	Status    string  `json:"status"`
	Label     *string `json:"label"`
}

// place is where the reading of a partition goes on: the position, and the highest request offset accepted before it.
// Both belong together, so both are in one commit: the position as its offset, and all of it as its metadata.
type place struct {
	Position int64  `json:"position"`
	Highest  *int64 `json:"highest"`
}

// take says whether the answer is accepted, and whether requests before it have none.
func (p *place) take(one answer) (accepted, hole bool) {
	if p.Highest != nil && one.Offset <= *p.Highest {
		return false, false // a worker that was stopped or frozen answered again
	}
	hole = p.Highest != nil && one.After > *p.Highest
	p.Highest = &one.Offset
	return true, hole
}

func read(stop context.Context, bootstrap, topic, group string) error {
	places := map[int32]*place{}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
		// Nothing is revoked while answers are worked on.
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { clear(places) }),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	for stop.Err() == nil {
		fetches := client.PollRecords(stop, 1000)
		if err := fetches.Err0(); err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		var failed error
		fetches.EachPartition(func(fetched kgo.FetchTopicPartition) {
			if failed == nil && len(fetched.Records) > 0 {
				failed = take(context.WithoutCancel(stop), client, admin, group, places, fetched.Records)
			}
		})
		if failed != nil {
			return failed
		}
		client.AllowRebalance()
	}
	return nil
}

// take accepts or drops answers of one partition, and commits the place behind them.
func take(
	ctx context.Context, client *kgo.Client, admin *kadm.Client, group string, places map[int32]*place, records []*kgo.Record,
) error {
	topic, partition := records[0].Topic, records[0].Partition
	here, known := places[partition]
	if !known {
		committed, err := admin.FetchOffsets(ctx, group)
		if err != nil {
			return err
		}
		here = &place{}
		if found, ok := committed.Lookup(topic, partition); ok && found.At >= 0 {
			err := json.Unmarshal([]byte(found.Metadata), here)
			if err != nil || here.Position != found.At {
				return fmt.Errorf("group %s has a commit of partition %d without its highest request: another tool made it. "+
					"Read with a new group", group, partition)
			}
		}
		places[partition] = here
	}
	for _, record := range records {
		var one answer
		if err := json.Unmarshal(record.Value, &one); err != nil {
			return fmt.Errorf("%s@%d is no answer in JSON: %w", topic, record.Offset, err)
		}
		one.Partition = partition // the requests and results topics have the same partitions
		before := here.Highest
		accepted, hole := here.take(one)
		if hole {
			fmt.Fprintf(os.Stderr, "partition %d: requests %d to %d have no answer\n", partition, *before+1, one.After)
		}
		if accepted {
			print(one)
		}
		here.Position = record.Offset + 1
	}
	metadata, err := json.Marshal(here)
	if err != nil {
		return err
	}
	said := string(metadata)
	ctx = kgo.PreCommitFnContext(ctx, func(request *kmsg.OffsetCommitRequest) error {
		request.Topics[0].Partitions[0].Metadata = &said
		return nil
	})
	return client.CommitRecords(ctx, records[len(records)-1])
}
