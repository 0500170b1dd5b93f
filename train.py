"""Fine-tune GPT-1 on the Story Cloze Test, exactly as OpenAI's program does.

    python train.py --dataset rocstories --desc rocstories --submit --analysis --data_dir data/ --n_gpu 8

Reads top to bottom: options, then the run: encode -> load -> fine-tune -> keep the best -> predict -> analyse.
"""
import argparse
import math
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn import DataParallel
from tqdm import tqdm

import analysis
from datasets import rocstories
from loss import MultipleChoiceLossCompute
from model_pytorch import ACT_FNS, Config, DoubleHeadModel, OpenAIShards, init_weights, load_openai_pretrained_model, special_rows
from opt import SCHEDULES, OpenAIAdam
from text_utils import TextEncoder
from utils import (InputError, ResultLogger, check_writable, collate, encode_dataset, find_devices, iter_data, longest_sequence, transform_roc,
                   whole_file)

EVALUATE_AFTER = (1000, 2000, 4000, 8000, 16000, 32000)  # updates, in the first epoch, as in the original
EVALUATION_BATCH = 64  # stories a device; no result depends on it


# -------------------------------------------------------------------------------------------------------------- options

class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, without the usage before it."""

    def error(self, message):
        self.exit(2, f'{self.prog}: error: {message}; see --help\n')


def parse_args(argv=None):
    parser = Parser(description='Fine-tune GPT-1 on the Story Cloze Test (ROCStories), as OpenAI\'s program does.',
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter,
                                     epilog='Defaults are those of openai/finetune-transformer-lm, unless a line says otherwise.')

    def number(kind, low, high=math.inf, but=()):
        def convert(text):
            value = kind(text)
            if not low <= value <= high or value in (*but, math.inf):
                raise argparse.ArgumentTypeError(f'{text} is out of range: expected {low} to {high}' + ''.join(f', but not {n}' for n in but))
            return value
        convert.__name__ = {int: 'whole number', float: 'number'}[kind]
        return convert

    rate = number(float, 0, 1, but=[1])

    group = parser.add_argument_group('what to do')
    group.add_argument('--dataset', required=True, choices=['rocstories'], help='the data set')
    group.add_argument('--desc', help='name of the run, for its log and its saved parameters (default: the data set\'s name)')
    group.add_argument('--submit', action='store_true', help='keep the best parameters by validation accuracy, and predict the test set with them')
    group.add_argument('--analysis', action='store_true', help='print validation and test accuracy at the end (needs --submit)')
    group.add_argument('--seed', type=number(int, 0, 2 ** 32 - 1), default=42, help='the same seed gives the original\'s batches in its order')

    group = parser.add_argument_group('folders and files')
    group.add_argument('--data_dir', default='data/', help='the two Story Cloze CSV files')
    group.add_argument('--model_dir', default='model/', help='OpenAI\'s weights and vocabulary (ours)')
    group.add_argument('--encoder_path', help='the vocabulary (default: encoder_bpe_40000.json in --model_dir)')
    group.add_argument('--bpe_path', help='the merges (default: vocab_40000.bpe in --model_dir)')
    group.add_argument('--log_dir', default='log/', help='for <desc>.jsonl')
    group.add_argument('--save_dir', default='save/', help='for <desc>/best_params')
    group.add_argument('--submission_dir', default='submission/', help='for ROCStories.tsv')

    group = parser.add_argument_group('data')
    group.add_argument('--n_valid', type=number(int, 1), default=374, help='stories set aside for validation')
    group.add_argument('--n_ctx', type=number(int, 6), default=512,
                       help='longest sequence in tokens; a story and an ending are cut to n_ctx / 2 - 2 tokens each')

    group = parser.add_argument_group('model')
    group.add_argument('--n_embd', type=number(int, 1), default=768, help='width')
    group.add_argument('--n_head', type=number(int, 1), default=12, help='attention heads')
    group.add_argument('--n_layer', type=number(int, 1), default=12, help='layers')
    group.add_argument('--n_transfer', type=number(int, -1), help='load the embedding and this many layers; -1 loads nothing (default: all)')
    group.add_argument('--afn', choices=list(ACT_FNS), default='gelu', help='activation of the feed-forward layers')
    group.add_argument('--embd_pdrop', type=rate, default=0.1, help='dropout rate of the embedding matrix')
    group.add_argument('--attn_pdrop', type=rate, default=0.1, help='dropout rate of the attention probabilities')
    group.add_argument('--resid_pdrop', type=rate, default=0.1, help='dropout rate before each residual sum')
    group.add_argument('--clf_pdrop', type=rate, default=0.1, help='dropout rate before the classifier')

    group = parser.add_argument_group('training')
    group.add_argument('--n_iter', type=number(int, 1), default=3, help='epochs')
    group.add_argument('--n_batch', type=number(int, 1), default=8, help='stories a device and step; n_batch * n_gpu stories make an update')
    group.add_argument('--lm_coef', type=number(float, 0), default=0.5, help='weight of the language-model loss beside the classifier\'s')
    group.add_argument('--share_context', action='store_true',
                       help='lay a story\'s two sequences out with one common beginning: faster, the same loss; with dropout, both then share its masks (ours)')

    group = parser.add_argument_group('optimizer')
    group.add_argument('--opt', choices=['adam'], default='adam', help='OpenAI\'s Adam with decoupled decay')
    group.add_argument('--lr', type=number(float, 0), default=6.25e-5, help='peak learning rate')
    group.add_argument('--lr_schedule', choices=list(SCHEDULES), default='warmup_linear', help='course of the learning rate')
    group.add_argument('--lr_warmup', type=number(float, 0, 1), default=0.002, help='share of all updates in which the learning rate rises')
    group.add_argument('--max_grad_norm', type=number(float, -1), default=1, help='clip the gradients\' global norm to this; 0 or -1: do not clip')
    group.add_argument('--l2', type=number(float, 0), default=0.01, help='decay, of parameters of more than one dimension')
    group.add_argument('--vector_l2', action='store_true', help='decay all parameters')
    group.add_argument('--b1', type=rate, default=0.9, help='decay rate of the gradients\' running mean')
    group.add_argument('--b2', type=rate, default=0.999, help='decay rate of the squared gradients\' running mean')
    group.add_argument('--e', type=number(float, 0, but=[0]), default=1e-8, help='added to the root of the latter')

    group = parser.add_argument_group('hardware')
    group.add_argument('--n_gpu', type=number(int, 1), default=4, help='devices the batch is meant for; with fewer, the same update is done in steps')
    group.add_argument('--device', default='auto', help='auto, cpu, cuda, or one device such as cuda:1; auto is cuda where there is one (ours)')
    group.add_argument('--precision', choices=['fp32', 'bf16'], default='fp32', help='of the matrix products (ours)')

    args = parser.parse_args(argv)
    args.desc = args.desc or args.dataset
    args.encoder_path = args.encoder_path or os.path.join(args.model_dir, 'encoder_bpe_40000.json')
    args.bpe_path = args.bpe_path or os.path.join(args.model_dir, 'vocab_40000.bpe')
    args.n_transfer = args.n_layer if args.n_transfer is None else args.n_transfer
    if args.n_embd % args.n_head:
        parser.error(f'--n_embd {args.n_embd} is not divisible by --n_head {args.n_head}')
    if args.n_transfer > args.n_layer:
        parser.error(f'--n_transfer {args.n_transfer} is more than --n_layer {args.n_layer}')
    if args.analysis and not args.submit:
        parser.error('--analysis reads the predictions of --submit: give both')
    if os.path.basename(args.desc) != args.desc or args.desc in ('.', '..'):
        parser.error(f'--desc {args.desc}: expected a name without folders')
    return args


# ------------------------------------------------------------------------------------------------------------------ run

class DevicesModel(DataParallel):
    """`nn.DataParallel` over batches that are already cut: one for each device."""

    def scatter(self, batches, kwargs, device_ids):
        return [(batch.to(device),) for batch, device in zip(batches, device_ids)], [kwargs for _ in batches]


class LossMeter:
    """Losses on their way from the device, read without making it wait."""

    def __init__(self):
        self.pending = []  # (update, loss on the host, event after which it is there)
        self.loss = None   # the newest that has arrived

    def add(self, n_updates, loss):
        host, event = loss, None
        if loss.is_cuda:
            host = torch.empty_like(loss, device='cpu', pin_memory=True).copy_(loss, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self.pending.append((n_updates, host, event))
        self.check(wait=False)

    def check(self, wait=True):
        """Raise InputError if a loss that has arrived is not finite."""
        while self.pending and (wait or self.pending[0][2] is None or self.pending[0][2].query()):
            n_updates, host, event = self.pending.pop(0)
            if event:
                event.synchronize()
            self.loss = host.item()
            if not math.isfinite(self.loss):
                raise InputError(f'update {n_updates}: the loss is {self.loss}; what was saved before is kept. A lower --lr may help')


class FineTuning:
    """A run: the model, the encoded stories, and where it stands."""

    def __init__(self, args, model, train, valid, devices, random_state):
        self.args, self.model, self.train, self.valid, self.devices = args, model, train, valid, devices
        self.random_state = random_state  # NumPy's, for the order of the stories
        self.batch_size = args.n_batch * args.n_gpu
        self.n_updates_total = len(train) // self.batch_size * args.n_iter
        self.compute_loss = MultipleChoiceLossCompute(args.lm_coef)
        self.opt = OpenAIAdam(model.parameters(), lr=args.lr, schedule=args.lr_schedule, warmup=args.lr_warmup, t_total=self.n_updates_total,
                              b1=args.b1, b2=args.b2, e=args.e, l2=args.l2, vector_l2=args.vector_l2, max_grad_norm=args.max_grad_norm)
        self.parallel = DevicesModel(model, devices) if len(devices) > 1 else None
        self.n_epochs = self.n_updates = 0
        self.best_score = 0

    @property
    def best_path(self):
        return os.path.join(self.args.save_dir, self.args.desc, 'best_params')

    def forward(self, stories, n_batch, share_context, lm):
        """The model on some stories, n_batch on each device: logits [stories, 2], LM losses [rows] or None, labels [stories]."""
        batches = [collate(stories[i:i + n_batch], self.model.config.first_position, share_context) for i in range(0, len(stories), n_batch)]
        if self.devices[0].type == 'cuda':
            batches = [batch.pin_memory() for batch in batches]
        label = torch.cat([batch.label for batch in batches]).to(self.devices[0], non_blocking=True)
        with torch.autocast(self.devices[0].type, torch.bfloat16, enabled=self.args.precision == 'bf16'):
            if self.parallel:
                return *self.parallel(*batches, lm=lm), label
            return *self.model(batches[0].to(self.devices[0]), lm=lm), label

    def update(self, stories):
        """One update from a global batch of stories. Returns its loss, a scalar tensor.

        Each device takes n_batch stories at a time; with fewer devices than --n_gpu the gradients of several such steps add up.
        """
        self.model.train()
        loss = torch.zeros((), device=self.devices[0])
        step = self.args.n_batch * len(self.devices)
        for i in range(0, len(stories), step):
            logits, lm_losses, label = self.forward(stories[i:i + step], self.args.n_batch, self.args.share_context, lm=self.args.lm_coef > 0)
            clf_losses = F.cross_entropy(logits, label, reduction='none')
            part = self.compute_loss(clf_losses, lm_losses, len(stories))
            part.backward()
            loss += part.detach()
        self.opt.step()
        self.opt.zero_grad(set_to_none=True)
        self.n_updates += 1
        return loss

    @torch.inference_mode()
    def predict(self, stories):
        """The classifier's logits, [stories, 2] float32 on the CPU. Stories of like length go together."""
        self.model.eval()
        order = sorted(range(len(stories)), key=lambda i: len(stories[i].trunk) + sum(map(len, stories[i].branches)))
        step = EVALUATION_BATCH * len(self.devices)
        logits = [self.forward([stories[i] for i in order[first:first + step]], EVALUATION_BATCH, True, lm=False)[0]
                  for first in range(0, len(order), step)]
        return torch.cat(logits).cpu()[torch.argsort(torch.tensor(order))]

    def score(self, stories):
        """Cost (mean classification cross-entropy) and accuracy in %."""
        logits, label = self.predict(stories), torch.tensor([story.label for story in stories])
        return F.cross_entropy(logits, label).item(), 100 * (logits.argmax(1) == label).double().mean().item()

    def evaluate(self, logger):
        """Log cost and accuracy, print the original's line, and with --submit keep the parameters if they are the best yet."""
        (tr_cost, tr_acc), (va_cost, va_acc) = self.score(self.train[:self.args.n_valid]), self.score(self.valid)
        values = dict(n_epochs=self.n_epochs, n_updates=self.n_updates, tr_cost=tr_cost, va_cost=va_cost, tr_acc=tr_acc, va_acc=va_acc)
        logger.log(**values)
        tqdm.write('{n_epochs} {n_updates} {tr_cost:.3f} {va_cost:.3f} {tr_acc:.2f} {va_acc:.2f}'.format(**values), file=sys.stdout)
        if self.args.submit and va_acc > self.best_score:
            self.best_score = va_acc
            with whole_file(self.best_path, 'wb') as f:
                torch.save(self.model.state_dict(), f)

    def run(self, logger):
        """All epochs. Raises InputError if a loss is not finite."""
        meter = LossMeter()
        for _ in range(self.args.n_iter):
            with tqdm(total=len(self.train) // self.batch_size * self.batch_size, unit=' stories', desc=f'epoch {self.n_epochs + 1}/{self.args.n_iter}',
                      leave=False, dynamic_ncols=True, disable=None) as bar:
                for indices in iter_data(len(self.train), self.batch_size, self.random_state):
                    meter.add(self.n_updates + 1, self.update([self.train[i] for i in indices]))
                    bar.update(len(indices))
                    bar.set_postfix(loss=meter.loss, lr=f'{self.opt.param_groups[0]["lr"]:.2e}', refresh=False)
                    if self.n_epochs == 0 and self.n_updates in EVALUATE_AFTER:
                        self.evaluate(logger)
            meter.check()
            self.n_epochs += 1
            self.evaluate(logger)


def encode_stories(splits, encoder, n_ctx):
    """`datasets.Stories` of each split to lists of `utils.Story`, with texts cut to n_ctx // 2 - 2 tokens."""
    with tqdm(total=3 * sum(len(split.id) for split in splits), unit=' texts', desc='encoding', leave=False, dynamic_ncols=True, disable=None) as bar:
        encoded = encode_dataset(splits, encoder.encode, bar)
    return [transform_roc(*ids, split.label, encoder.n_vocab, max_len=n_ctx // 2 - 2) for split, ids in zip(splits, encoded)]


def build_model(config, args, shards, special):
    """The model with its parameters loaded and drawn, on the CPU."""
    with torch.device('meta'):  # the parameters get memory, and their values, once
        model = DoubleHeadModel(config)
    model.to_empty(device='cpu')
    loaded = load_openai_pretrained_model(model, shards, special, args.n_transfer)
    init_weights(model, loaded)
    return model


def describe(args, splits, longest, config, model, tuning):
    """The table printed before training."""
    n_train, n_valid, n_test = map(len, splits)
    parameters = sum(p.numel() for p in model.parameters())
    source = 'random' if args.n_transfer < 0 else f'embedding and {args.n_transfer} of {args.n_layer} layers from {args.model_dir}'
    on = f'{len(tuning.devices)} x {torch.cuda.get_device_name(tuning.devices[0])}' if tuning.devices[0].type == 'cuda' \
        else f'CPU, {torch.get_num_threads()} threads'
    lines = [('data', f'{n_train:,} training, {n_valid:,} validation, {n_test:,} test stories; longest {longest} tokens, n_ctx {config.n_ctx}'),
             ('model', f'{parameters / 1e6:.1f} M parameters, {source}'),
             ('batch', f'{tuning.batch_size} stories an update; {tuning.n_updates_total // args.n_iter} updates an epoch, {tuning.n_updates_total} in all'),
             ('device', f'{on}; {args.precision}')]
    if args.n_gpu > len(tuning.devices):
        found = f'{len(tuning.devices)} CUDA device{"s" * (len(tuning.devices) > 1)}' if tuning.devices[0].type == 'cuda' else 'the CPU'
        lines.append(('', f'{args.n_gpu} devices asked for, running on {found}: each update adds up steps of {args.n_batch * len(tuning.devices)} stories'))
    return '\n'.join(f'{name:8}{text}' for name, text in lines)


def run(args):
    """Encode, load, fine-tune, predict, analyse. Raises InputError, before the costly work where the input is at fault."""
    devices = find_devices(args.device, args.n_gpu)
    for folder in (args.log_dir, args.save_dir, args.submission_dir) if args.submit else (args.log_dir,):
        check_writable(folder)
    shards = OpenAIShards(args.model_dir) if args.n_transfer >= 0 else None
    encoder = TextEncoder(args.encoder_path, args.bpe_path)
    if shards:
        shards.check(encoder.n_vocab, args.n_embd, args.n_transfer)
    splits = rocstories(args.data_dir, args.n_valid)
    if len(splits[0].id) < args.n_batch * args.n_gpu:
        raise InputError(f'{len(splits[0].id)} training stories are left after {args.n_valid} for validation, too few for one batch of '
                         f'n_batch * n_gpu = {args.n_batch * args.n_gpu}; lower --n_batch or --n_gpu')

    train, valid, test = encode_stories(splits, encoder, args.n_ctx)
    longest = longest_sequence(train + valid + test)
    config = Config(n_vocab=encoder.n_vocab, n_ctx=min(longest, args.n_ctx), n_embd=args.n_embd, n_head=args.n_head, n_layer=args.n_layer,
                    afn=args.afn, embd_pdrop=args.embd_pdrop, attn_pdrop=args.attn_pdrop, resid_pdrop=args.resid_pdrop, clf_pdrop=args.clf_pdrop)

    # Load. NumPy's random state is used as the original uses it: first for the special tokens' rows, then for the order of each epoch.
    torch.manual_seed(args.seed)
    random_state = np.random.RandomState(args.seed)
    model = build_model(config, args, shards, special_rows(args.n_embd, random_state)).to(devices[0])

    # Fine-tune
    tuning = FineTuning(args, model, train, valid, devices, random_state)
    print(describe(args, (train, valid, test), longest, config, model, tuning), flush=True)
    log_path = os.path.join(args.log_dir, f'{args.desc}.jsonl')
    logger = ResultLogger(log_path, **vars(args))
    tuning.run(logger)
    logger.close()

    # Predict and analyse
    if args.submit:
        model.load_state_dict(torch.load(tuning.best_path, map_location=devices[0], weights_only=True, mmap=True))
        submission_path = os.path.join(args.submission_dir, 'ROCStories.tsv')
        with whole_file(submission_path) as f:
            f.write('index\tprediction\n')
            f.writelines(f'{i}\t{prediction}\n' for i, prediction in enumerate(tuning.predict(test).argmax(1).tolist()))
        if args.analysis:
            analysis.rocstories(args.data_dir, submission_path, log_path)


def main(argv=None):
    args = parse_args(argv)
    try:
        run(args)
    except InputError as error:
        print(f'train.py: error: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
